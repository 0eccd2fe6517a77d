from .bank import Bank as Bank
from .predictions import Predictions as Predictions
from .stream import predict_cached as predict_cached
from .stream import predict_images as predict_images
