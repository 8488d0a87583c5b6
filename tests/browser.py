"""A headless Chromium for tests that look at pages; they skip where there is none."""

import base64
import io
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="chromium or chromedriver is not installed: apt-get install chromium chromium-driver",
)


def npm(path):
    """Return a file that npm installed, in node_modules here or where NODE_PATH says, or None."""
    folders = [Path(__file__).parents[1] / "node_modules"]
    folders += [Path(each) for each in os.environ.get("NODE_PATH", "").split(os.pathsep) if each]
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


AXE = npm("axe-core/axe.min.js")

needs_axe = pytest.mark.skipif(
    AXE is None, reason="axe-core is not installed: npm install axe-core"
)

FAINTEST = """
const rgb = (s) => s.match(/[\\d.]+/g).map(Number);
const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255;
  return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = (e) => { for (; e; e = e.parentElement) {
  const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3]) return c; }
  return [255, 255, 255]; };
let worst = [99, ""];
for (const e of document.querySelectorAll(SELECTOR)) {
  if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
  if (e.namespaceURI.endsWith("svg") || e.tagName === "SCRIPT") continue;
  const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 80)];
}
return worst;"""


class Browser:
    """A headless Chromium, spoken to by the WebDriver protocol."""

    def __init__(self):
        self.process = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        line = next(each for each in self.process.stdout if "started successfully on port" in each)
        self.address = f"http://127.0.0.1:{line.strip().rstrip('.').split()[-1]}"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options = {"binary": CHROMIUM, "args": arguments}
        asked = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            # A busy machine may take longer than the driver's 30 seconds for a script.
            "timeouts": {"script": 120_000},
        }
        session = self.call("", {"capabilities": {"alwaysMatch": asked}}, session="")
        self.session = session["sessionId"]

    def call(self, path, content=None, session=None):
        session = f"/session/{self.session}" if session is None else "/session"
        request = urllib.request.Request(
            self.address + session + path,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=150) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:  # which says no more than "500"
            raise RuntimeError(error.read().decode()) from None

    def run(self, script):
        return self.call("/execute/sync", {"script": script, "args": []})

    def run_async(self, script):
        """Run a script that calls ``done`` with its result."""
        script = f"const done = arguments[arguments.length - 1];{script}"
        return self.call("/execute/async", {"script": script, "args": []})

    def show(self, path, width=1280, *, dark=False):
        """Open a page at a width, as a light or a dark screen has it."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.chrome("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.chrome("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
        self.call("/url", {"url": path if isinstance(path, str) else path.as_uri()})

    def pause(self, condition, seconds=10.0):
        """Wait until a script's expression is true."""
        script = f"""
            const done = arguments[arguments.length - 1], since = Date.now();
            (function look() {{
              let fine = false;
              try {{ fine = Boolean({condition}); }} catch {{ fine = false; }}
              if (fine || Date.now() - since > {seconds * 1000}) done(fine);
              else setTimeout(look, 20);
            }})();"""
        assert self.call("/execute/async", {"script": script, "args": []}), condition

    def faintest(self, selector):
        """Return the least contrast of text and what is behind it, and the element that has it."""
        return self.run(f"const SELECTOR = {json.dumps(selector)};{FAINTEST}")

    def violations(self):
        """Return what axe-core finds wrong for people who do not see or use a mouse."""
        self.run(AXE.read_text(encoding="utf-8"))
        found = self.run_async("axe.run().then((found) => done(found.violations))")
        return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]

    def chrome(self, command, parameters):
        return self.call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def errors(self):
        return self.call("/se/log", {"type": "browser"})

    def picture(self):
        png = base64.b64decode(self.call("/screenshot"))
        return Image.open(io.BytesIO(png)).convert("RGB")

    def close(self):
        request = urllib.request.Request(f"{self.address}/session/{self.session}", method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()
        self.process.terminate()
        self.process.stdout.close()
        self.process.wait()
