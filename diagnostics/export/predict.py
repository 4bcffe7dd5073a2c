"""Classify image files with an exported model."""

import argparse
import hashlib
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

    image = ImageOps.exif_transpose(Image.open(path, formats=SETTINGS["formats"]))
    if image.mode.startswith("I;16") and SETTINGS["bit_depth"]:
        values = np.asarray(image).astype(np.uint32) >> SETTINGS["bit_depth"] - 8
        image = Image.fromarray(np.minimum(values, 255).astype(np.uint8))
    if image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode} has no known range, set bit_depth in preprocessing.json")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None].copy()


def load_model(name: str) -> Any:
    """Load a graph: a function from `read_image`'s result to logits. A bare name may lie beside this script."""
    path = Path(name) if Path(name).exists() or Path(name).name != name else HERE / name
    if not path.is_file():
        sys.exit(f"{make_printable(name)}: no such file")
    for file in (path, path.with_name(f"{path.name}.data")):  # large ONNX has its weights in the second
        expected = SETTINGS["sha256"].get(file.name) if file.parent.resolve() == HERE.resolve() else None
        if expected is not None and hashlib.sha256(file.read_bytes()).hexdigest()[:16] != expected:
            sys.exit(f"{make_printable(str(file))} is damaged: its SHA-256 is not the one in preprocessing.json")
    if name.endswith(".onnx"):
        session = __import__("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda pixels: session.run(None, {SETTINGS["input"]: pixels})[0]
    torch = __import__("torch")
    program = torch.export.load(path).module()
    return lambda pixels: program(torch.from_numpy(pixels)).detach().numpy()


def make_printable(text: str) -> str:
    """Return text in which control characters are escapes, so that a name cannot steer the terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def run(words: list[str]) -> int:
    """Print a line for each image; return 1 where one could not be read."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "image", nargs="+", help="an image file; a name that ends in .onnx or .pt2 chooses the model"
    )
    files = parser.parse_args(words).image if words else []
    graphs = [file for file in files if file.endswith((".onnx", ".pt2"))]
    images = [file for file in files if file not in graphs]
    if not images or len(graphs) > 1:
        parser.print_help()
        return 2
    usable = [
        name for name in SETTINGS["graphs"] if find_spec("torch" if name.endswith(".pt2") else "onnxruntime")
    ]
    classify = load_model((graphs + usable or sys.exit("pip install onnxruntime"))[0])
    import numpy as np

    failed = 0
    for path in images:
        try:
            pixels = read_image(path)
        except Exception as error:  # bytes that are no image make Pillow fail in any way at all
            failed = 1
            reason = make_printable(str(error) or type(error).__name__)
            print(f"{make_printable(path)}: cannot be read as an image ({reason})", file=sys.stderr)
            continue
        logits = classify(pixels)[0].astype(float)
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = [f"{SETTINGS['classes'][place]} {shares[place]:.1%}" for place in np.argsort(-shares)[:3]]
        print(make_printable(f"{path}: {', '.join(best)}"))
    return failed


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
