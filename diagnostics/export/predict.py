"""Classify image files with an exported model."""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "preprocessing.json").read_text(encoding="utf-8"))
EXAMPLE = f"""example:
  python predict.py photo.jpg scan.png
  python predict.py {SETTINGS["graphs"][-1]} photo.jpg

Each line names an image and its three most probable classes. Needs Pillow and numpy, with onnxruntime for .onnx or
torch for .pt2. The model files lie beside this script; README.md describes them."""


def read_image(path: str) -> Any:
    """Read a picture as (1, 3, height, width) uint8, upright, over white."""
    import numpy as np
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16") and SETTINGS["bit_depth"]:
        values = np.asarray(image).astype(np.uint32) >> SETTINGS["bit_depth"] - 8
        image = Image.fromarray(np.minimum(values, 255).astype(np.uint8))
    if image.mode[0] in "IF":
        sys.exit(f"{path}: mode {image.mode} has no known range, set bit_depth in preprocessing.json")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None].copy()


def load_model(name: str) -> Any:
    """Load a graph: a function from `read_image`'s result to logits."""
    if name.endswith(".onnx"):
        session = __import__("onnxruntime").InferenceSession(HERE / name, providers=["CPUExecutionProvider"])
        return lambda pixels: session.run(None, {SETTINGS["input"]: pixels})[0]
    torch = __import__("torch")
    program = torch.export.load(HERE / name).module()
    return lambda pixels: program(torch.from_numpy(pixels)).detach().numpy()


def run(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "image", nargs="+", help="an image file; a name that ends in .onnx or .pt2 chooses the model"
    )
    if not words:
        parser.print_help()
        sys.exit(2)
    files = parser.parse_args(words).image
    graphs = [Path(file).name for file in files if file.endswith((".onnx", ".pt2"))]
    usable = [
        name for name in SETTINGS["graphs"] if find_spec("torch" if name.endswith(".pt2") else "onnxruntime")
    ]
    classify = load_model((graphs + usable or sys.exit("pip install onnxruntime"))[0])
    import numpy as np

    for path in (file for file in files if Path(file).name not in graphs):
        logits = classify(read_image(path))[0].astype(float)
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = [f"{SETTINGS['classes'][place]} {shares[place]:.1%}" for place in np.argsort(-shares)[:3]]
        print(f"{path}: {', '.join(best)}")


if __name__ == "__main__":
    run(sys.argv[1:])
