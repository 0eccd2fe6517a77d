"""Predict with an exported run. It takes NumPy, Pillow and ONNX Runtime: ``python predict.py run.onnx a.png b.jpg``

The vectors are written to vectors.npy.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def prepare(image, how):
    """Resize an image and cut out its centre, as the metadata of an input says: uint8, (height, width, 3)."""
    (height, width), sides = how["size"], (image.height, image.width)
    if how["resize"] == "shortest" and height == width:
        short, long = min(sides), max(sides)
        height, width = (height if side == short else int(height * long / short) for side in sides)
    elif how["resize"] != "squash":
        ratio = (max if how["resize"] == "longest" else min)(sides[0] / height, sides[1] / width)
        height, width = (max(1, round(side / ratio)) for side in sides)
    image = image.resize((width, height), Image.Resampling[how["interpolation"].upper()])
    canvas = Image.new("RGB", (how["width"], how["height"]), tuple(how["fill"]))
    top, left = (
        round((side - size) / 2) if side >= size else -((size - side) // 2)
        for side, size in ((height, how["height"]), (width, how["width"]))
    )
    canvas.paste(image, (-left, -top))
    pixels = np.asarray(canvas)
    return pixels[:, ::-1] if how["mirror"] else pixels


def open_image(path):
    """Decode an image: upright, and over white where it is transparent."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def predict(model, paths):
    """Give the vectors of images, (n, 384), and the cosines that are expected of them, (n,)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    ways = json.loads(session.get_modelmeta().custom_metadata_map["inputs"])
    images = [open_image(path) for path in paths]
    return session.run(
        None, {name: np.stack([prepare(image, how) for image in images]) for name, how in ways.items()}
    )


if __name__ == "__main__":
    np.save("vectors.npy", predict(sys.argv[1], sys.argv[2:])[0])
