"""The packages that an extra of promptmii asks for, compared with those that are installed."""


def unmet(extra: str) -> dict[str, str]:
    """By package, what the extra asks for and finds otherwise, such as `trl>=1.16,<1.17 (1.20.0 is installed)`."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        listed = [Requirement(line) for line in requires("promptmii") or ()]
    except PackageNotFoundError:  # run from a checkout that was never installed
        return {}
    found: dict[str, str] = {}
    for asked in listed:
        if asked.marker is None or asked.marker.evaluate({"extra": ""}) or not asked.marker.evaluate({"extra": extra}):
            continue
        if asked.name == "promptmii":
            found |= {name: line for inner in sorted(asked.extras) for name, line in unmet(inner).items()}
            continue
        try:
            installed = version(asked.name)
        except PackageNotFoundError:
            found[asked.name] = f"{asked.name}{asked.specifier}"
            continue
        if not asked.specifier.contains(installed, prereleases=True):
            found[asked.name] = f"{asked.name}{asked.specifier} ({installed} is installed)"
    return found
