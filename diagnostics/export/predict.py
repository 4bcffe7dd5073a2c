"""python predict.py [FILE.onnx | FILE.pt2] IMAGE ...: needs Pillow, numpy and onnxruntime, else torch."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "preprocessing.json").read_text(encoding="utf-8"))


def read(path: str) -> Any:
    """A picture as the graphs take it, (1, 3, height, width) uint8: upright, transparency over white."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16") and SETTINGS["bit_depth"]:
        values = np.asarray(image).astype(np.uint32) >> SETTINGS["bit_depth"] - 8
        image = Image.fromarray(np.minimum(values, 255).astype(np.uint8))
    if image.mode[0] in "IF":
        sys.exit(f"{path}: mode {image.mode} has no known range, set bit_depth in preprocessing.json")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None].copy()


def open_model(name: str) -> Any:
    """A graph as a function of what `read` gives to logits (1, classes)."""
    if name.endswith(".onnx"):
        session = __import__("onnxruntime").InferenceSession(HERE / name, providers=["CPUExecutionProvider"])
        return lambda pixels: session.run(None, {SETTINGS["input"]: pixels})[0]
    torch = __import__("torch")
    program = torch.export.load(HERE / name).module()
    return lambda pixels: program(torch.from_numpy(pixels)).detach().numpy()


if __name__ == "__main__":
    usable = [name for name in SETTINGS["graphs"] if find_spec("torch" if name.endswith("2") else "onnxruntime")]
    given = [Path(word).name for word in sys.argv[1:] if word.endswith((".onnx", ".pt2"))]
    model = open_model((given + usable or sys.exit("pip install onnxruntime"))[0])
    for path in (word for word in sys.argv[1:] if Path(word).name not in given):
        logits = model(read(path))[0].astype(float)
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = [f"{SETTINGS['classes'][place]} {shares[place]:.1%}" for place in np.argsort(-shares)[:3]]
        print(f"{path}: {', '.join(best)}")
