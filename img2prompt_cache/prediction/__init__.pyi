from .bank import Bank as Bank
from .predict import Predictions as Predictions
from .predict import predict_cached as predict_cached
from .predict import predict_images as predict_images
