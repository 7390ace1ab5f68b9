"""Ask a question in a chat page and print the answer: browser.py URL QUESTION SECONDS [PICTURE]."""

import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait


def main() -> None:
    url, question, seconds, *picture = sys.argv[1:]
    options = webdriver.ChromeOptions()
    for each in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,800",
                 "--disable-dev-shm-usage"):  # fmt: skip
        options.add_argument(each)
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    browser = webdriver.Chrome(options=options, service=service)
    wait = WebDriverWait(browser, float(seconds))
    try:
        browser.get(url)
        box = wait.until(lambda page: page.find_element(By.ID, "chat-input"))
        for text in ("Okay, Let's Go!", "Get started"):
            for button in browser.find_elements(By.XPATH, f'//button[contains(., "{text}")]'):
                button.click()
        time.sleep(1)
        box = browser.find_element(By.ID, "chat-input")
        box.click()
        box.send_keys(question)
        box.send_keys(Keys.ENTER)
        answer = wait.until(_answer)
        print(f"answer: {answer}")
    finally:
        if picture:
            Path(picture[0]).write_bytes(browser.get_screenshot_as_png())
        browser.quit()


def _answer(browser: webdriver.Chrome) -> str:
    """Return the answer once it no longer grows."""
    before = ""
    for _ in range(5):
        found = browser.find_elements(By.CSS_SELECTOR, ".chat-assistant")
        text = found[-1].text.strip() if found else ""
        if not text or (before and text != before):
            return ""
        before = text
        time.sleep(1.5)
    return before


if __name__ == "__main__":
    main()
