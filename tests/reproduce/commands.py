"""Command lines of reproductions at small sizes."""


def reproduce(paper, sizes, out, data="digits", **changed):
    """The words of ``vaefast reproduce``: ``sizes`` by option, with ``changed`` ones in place."""
    sizes = sizes | {name.replace("_", "-"): value for name, value in changed.items()}
    options = [str(word) for name, value in sizes.items() for word in (f"--{name}", value)]
    common = ["--data", str(data), "--out", str(out), "--threads", "1"]
    return ["reproduce", paper, *common, *options]
