"""The status page in a real browser: it renders, follows what happens, runs nobody's script, asks nobody else."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from straxflow.dashboard.server import Serving, in_background
from straxflow.lab.rundb_server import RunDbServer
from tests.dashboard_site import EVIL, PageSite, page_site
from tests.site import wait_until

Driver = webdriver.Chrome


def browser(folder: Path) -> Driver:
    """A headless Chromium that can reach this machine only."""
    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    words = [
        "headless=new", "disable-dev-shm-usage", "disable-gpu", "window-size=1500,1200", f"user-data-dir={folder}",
        "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync",
        "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ]  # fmt: skip
    if os.geteuid() == 0:
        words.append("no-sandbox")
    for word in words:
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Driver(options=options, service=Service(shutil.which("chromedriver")))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A browser."""
    driver = browser(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer) -> Iterator[PageSite]:
    """A site with a run in each state."""
    yield from page_site(tmp_path_factory.mktemp("page"), rundb_server)


@pytest.fixture
def page(site: PageSite, driver: Driver) -> Iterator[Serving]:
    """The page, open in the browser; afterwards nothing was complained of, and nobody else was asked."""
    driver.get_log("browser")
    driver.get_log("performance")
    with in_background(site.site) as serving:
        driver.get(serving.url)
        wait_until(lambda: driver.find_elements(By.CSS_SELECTOR, "table.runs tbody tr"))
        yield serving
        assert complaints(driver) == []
        assert [url for url in requests(driver) if not url.startswith((serving.url, "data:", "chrome:"))] == []
        assert driver.execute_script("return window.pwned") is None
        driver.get("about:blank")


def complaints(driver: Driver) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] != "DEBUG"]


def requests(driver: Driver) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def row(driver: Driver, run: str) -> WebElement | None:
    found = [r for r in driver.find_elements(By.CSS_SELECTOR, "table.runs tbody tr") if r.text.startswith(run)]
    return found[0] if found else None


def state(driver: Driver, run: str) -> str | None:
    script = """
        const rows = [...document.querySelectorAll("table.runs tbody tr")];
        const one = rows.find((row) => row.querySelector("td.run").textContent === arguments[0]);
        return one ? one.querySelector(".pill").textContent : null;
    """
    found: str | None = driver.execute_script(script, run)
    return found


def listed(driver: Driver) -> list[str]:
    script = 'return [...document.querySelectorAll("table.runs td.run")].map((cell) => cell.textContent)'
    found: list[str] = driver.execute_script(script)
    return found


def text(driver: Driver) -> str:
    return driver.find_element(By.ID, "page").text


def eventually(words: Callable[[], Any]) -> Any:
    return wait_until(words, 30)


def test_everything_is_there(page: Serving, driver: Driver) -> None:
    assert driver.title == "here · straxflow"
    eventually(lambda: "in 1 invocation" in text(driver))
    tiles = {
        tile.text.split("\n")[0]: tile.text.split("\n")[1] for tile in driver.find_elements(By.CSS_SELECTOR, "a.tile")
    }
    assert tiles == {"working": "1", "pending": "2", "waiting": "1", "failed": "1", "done": "2"}
    assert listed(driver)[-1] == "000101"
    cells = driver.find_elements(By.CSS_SELECTOR, "table.runs tbody tr:last-child i.cell.done")
    assert len(cells) == 11
    assert driver.find_elements(By.CSS_SELECTOR, "i.cell.running")
    assert driver.find_elements(By.CSS_SELECTOR, "i.cell.failed")
    for heading in ("Failures", "Throughput", "At work", "Disks", "Monitor: events"):
        eventually(lambda heading=heading: heading in text(driver))
    eventually(lambda: driver.find_elements(By.CSS_SELECTOR, "svg rect.value"))
    assert eventually(lambda: driver.find_element(By.CSS_SELECTOR, "img.plot").get_property("naturalWidth"))


def test_what_people_wrote_stays_text(page: Serving, driver: Driver) -> None:
    eventually(lambda: EVIL in driver.find_element(By.CSS_SELECTOR, ".failures .reason").text)
    assert EVIL in driver.find_element(By.CSS_SELECTOR, "table.runs tbody").text
    driver.get(f"{page.url}#/run/000101")
    eventually(lambda: "Run 000101" in text(driver))
    assert [tag.text for tag in driver.find_elements(By.CSS_SELECTOR, ".tag")] == [EVIL]
    assert EVIL in driver.find_element(By.TAG_NAME, "blockquote").text
    assert EVIL[:50] in driver.find_element(By.CSS_SELECTOR, ".figures").text
    images = driver.find_elements(By.TAG_NAME, "img")
    assert all(image.get_attribute("src").startswith(page.url) for image in images)
    assert len(driver.find_elements(By.TAG_NAME, "script")) == 1


def test_it_follows_what_happens_without_being_loaded_again(page: Serving, site: PageSite, driver: Driver) -> None:
    eventually(lambda: state(driver, "000104") == "pending")
    # what a person did to the page stays: the elements are the same, an opened log is still open
    driver.execute_script("window.mine = document.querySelector('table.runs tbody tr:last-child')")
    driver.execute_script("document.querySelector('details.log').open = true")
    eventually(lambda: "the last word" in driver.find_element(By.CSS_SELECTOR, "details.log pre").text)
    site.set_status(104, "done")
    eventually(lambda: state(driver, "000104") == "done")
    site.runs.insert_one({"number": 120, "start": site.runs.find_one({"number": 104})["start"], "mode": "new_mode"})  # type: ignore[index]
    try:
        eventually(lambda: listed(driver)[0] == "000120")
        same = "return window.mine === document.querySelector('table.runs tbody tr:last-child')"
        assert driver.execute_script(same) is True
        assert driver.execute_script("return document.querySelector('details.log').open") is True
    finally:
        site.runs.delete_one({"number": 120})
        site.set_status(104, "pending")
    eventually(lambda: state(driver, "000104") == "pending")
    eventually(lambda: listed(driver)[0] == "000111")


def test_the_filter(page: Serving, driver: Driver) -> None:
    driver.find_element(By.CSS_SELECTOR, "a.tile.failed").click()
    eventually(lambda: listed(driver) == ["000103"])
    assert driver.current_url.endswith("#/?state=failed")
    driver.find_element(By.CSS_SELECTOR, "a.tile.failed").click()
    eventually(lambda: len(listed(driver)) == 11)
    Select(driver.find_element(By.ID, "mode")).select_by_value("led")
    eventually(lambda: listed(driver) == ["000102"])
    Select(driver.find_element(By.ID, "state")).select_by_value("done")
    eventually(lambda: "state=done&mode=led" in driver.current_url)
    Select(driver.find_element(By.ID, "mode")).select_by_value("")
    eventually(lambda: listed(driver) == ["000102", "000101"])
    driver.back()
    eventually(lambda: listed(driver) == ["000102"])
    driver.find_element(By.CSS_SELECTOR, "a.clear").click()
    eventually(lambda: len(listed(driver)) == 11)
    assert Select(driver.find_element(By.ID, "mode")).first_selected_option.text == "all"


def test_the_page_of_a_run(page: Serving, driver: Driver) -> None:
    driver.find_element(By.LINK_TEXT, "000103").click()
    eventually(lambda: "Attempts" in text(driver))
    assert "transfer" in text(driver)
    assert driver.find_elements(By.CSS_SELECTOR, ".outcome.failed")
    driver.find_element(By.CSS_SELECTOR, "details.log summary").click()
    eventually(lambda: "the last word" in driver.find_element(By.CSS_SELECTOR, "details.log pre").text)
    driver.find_element(By.PARTIAL_LINK_TEXT, "all runs").click()
    eventually(lambda: len(listed(driver)) == 11)


def test_an_unknown_run(page: Serving, driver: Driver) -> None:
    driver.get(f"{page.url}#/run/000999")
    eventually(lambda: "there is no run 000999" in text(driver))
    complained = [line for line in complaints(driver) if "404" not in line]
    assert complained == []


@pytest.mark.parametrize("width", [360, 760, 1180, 1900])
def test_on_a_screen_of_any_width(page: Serving, driver: Driver, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        eventually(lambda: driver.find_elements(By.CSS_SELECTOR, "img.plot"))
        assert driver.execute_script(wide) <= 0
        driver.get(f"{page.url}#/run/000101")
        eventually(lambda: "Run 000101" in text(driver))
        assert driver.execute_script(wide) <= 0
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_light_and_dark(page: Serving, driver: Driver) -> None:
    def colour() -> list[int]:
        found = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        return [int(word) for word in found[found.index("(") + 1 : -1].split(",")[:3]]

    def prefer(scheme: str) -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    prefer("light")
    assert min(colour()) > 200
    prefer("dark")
    assert max(colour()) < 60
    driver.find_element(By.CSS_SELECTOR, "button.theme").click()
    assert min(colour()) > 200
    driver.execute_script("localStorage.clear()")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_database_away(page: Serving, site: PageSite, driver: Driver) -> None:
    site.door.shut()
    try:
        eventually(lambda: "The run database does not answer" in text(driver))
        assert "without the run database" in driver.find_element(By.ID, "live").text
        assert listed(driver)
    finally:
        site.door.is_open = True
    eventually(lambda: "The run database does not answer" not in text(driver))


def test_the_switch_is_off(page: Serving, site: PageSite, driver: Driver) -> None:
    switch = site.client[site.database]["straxflow_switch"]
    switch.insert_one({"name": "auto_processing", "status": "off", "user": EVIL})
    try:
        eventually(lambda: "auto_processing is off" in text(driver))
    finally:
        switch.drop()
    eventually(lambda: "auto_processing is off" not in text(driver))


def test_the_server_away(site: PageSite, driver: Driver) -> None:
    with in_background(site.site) as serving:
        port = int(serving.url.split(":")[2].rstrip("/"))
        driver.get(serving.url)
        eventually(lambda: listed(driver))
    try:
        eventually(lambda: "has not answered since" in text(driver))
        live = driver.find_element(By.ID, "live")
        assert "no answer" in live.text
        assert live.get_attribute("class") == "live bad"
        assert listed(driver)  # what was known is still there
        with in_background(site.site, port=port):
            eventually(lambda: "has not answered since" not in text(driver))
            eventually(lambda: "old" in live.text and "no answer" not in live.text)
    finally:
        with contextlib.suppress(WebDriverException):
            driver.get("about:blank")
        driver.get_log("browser")
