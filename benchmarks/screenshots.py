"""`make screenshots`: the README's pictures, taken from the running app."""

from benchmarks.pages import ROOT, chromium, open_page, serve

SHOTS = {
    "home-light": ("/", 1440, 900, "light"),
    "regions-light": ("/regions", 1440, 900, "light"),
    "regions-dark": ("/regions?light=one+element&n=1&c=2&h=1&w=1", 1440, 900, "dark"),
    "statistics-light": ("/statistics", 1440, 900, "light"),
    "batch-dark": ("/batch", 1440, 900, "dark"),
    "equality-light": ("/equality", 1440, 900, "light"),
    "failures-light": ("/failures?answer_one_value=Just+show+me", 1440, 900, "light"),
    "catalogue-light": ("/catalogue", 1440, 900, "light"),
    "method-light": ("/method?key=group_norm", 1440, 900, "light"),
    "race-light": ("/race?seeds=12&steps=400", 1440, 900, "light"),
    "clipping-dark": ("/clipping?tab=The+cliff", 1440, 900, "dark"),
    "gradient-flow-light": ("/gradient_flow", 1440, 900, "light"),
    "regions-phone": ("/regions?method=group_norm", 390, 844, "light"),
}

if __name__ == "__main__":
    folder = ROOT / "docs" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser, serve(str(ROOT / "app.py")) as address:
        for name, (path, width, height, scheme) in SHOTS.items():
            page = open_page(browser, address + path, viewport={"width": width, "height": height}, color_scheme=scheme)
            if path.startswith("/race"):
                page.locator(".st-key-go button").click()
                page.mouse.move(0, 0)  # the pointer would bring up what the button says of itself
                page.get_by_text("Finished").wait_for(timeout=120_000)
                page.wait_for_timeout(2000)
            page.screenshot(path=str(folder / f"{name}.png"))
            page.close()
            print(folder / f"{name}.png")
