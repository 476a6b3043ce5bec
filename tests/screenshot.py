"""The picture of the page in the README: the sample, written by `qwen-writer` and labelled by `qwen`.

python -m tests.screenshot docs/ui.webp
"""

import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from tests.chromium import chromium
from tests.ui.server import TOKEN, serving

from promptmii.config import Endpoint

SIZE = {"width": 1120, "height": 1290}
QUALITY = 80
PATIENCE = 30 * 60 * 1000
"""Milliseconds."""


def main(path: Path) -> None:
    with TemporaryDirectory() as home, serving(Path(home), Endpoint.load) as url, chromium() as browser:
        page = browser.new_page(viewport=SIZE, device_scale_factor=1.5)
        page.goto(f"{url}/?token={TOKEN}")
        page.get_by_role("button", name="Use the sample").click()
        page.fill("#evaluate", "48")
        page.click("#go")
        page.wait_for_selector("#compared", timeout=PATIENCE)
        picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(path, quality=QUALITY, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
