"""The picture of the page in the README, on the sample with a scripted model.

python -m tests.screenshot docs/ui.webp
"""

import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from tests.chromium import chromium
from tests.ui.server import TOKEN, serving
from tests.ui.toy import Models

SIZE = {"width": 1120, "height": 1020}
QUALITY = 80


def main(path: Path) -> None:
    with TemporaryDirectory() as home, serving(Path(home), Models()) as url, chromium() as browser:
        page = browser.new_page(viewport=SIZE, device_scale_factor=1.5)
        page.goto(f"{url}/?token={TOKEN}")
        page.get_by_role("button", name="Use the sample").click()
        page.select_option("#generator", "other")
        page.fill("#generator_other", "scripted")
        page.fill("#evaluate", "40")
        page.click("#go")
        page.wait_for_selector("#compared")
        picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(path, quality=QUALITY, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
