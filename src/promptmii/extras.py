"""Compares the requirements of an extra of promptmii with the installed packages."""


def unmet(extra: str) -> dict[str, str]:
    """The unmet requirements of the extra by package, such as `trl>=1.16,<1.17 (1.20.0 is installed)`."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in requires("promptmii") or ()]
    except PackageNotFoundError:  # run from a checkout that was never installed
        return {}
    missing: dict[str, str] = {}
    for requirement in requirements:
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "promptmii":
            missing |= {name: line for inner in sorted(requirement.extras) for name, line in unmet(inner).items()}
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            missing[requirement.name] = f"{requirement.name}{requirement.specifier}"
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            missing[requirement.name] = f"{requirement.name}{requirement.specifier} ({installed} is installed)"
    return missing
