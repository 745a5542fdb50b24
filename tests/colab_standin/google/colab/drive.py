"""Google Drive as a list of what was mounted."""

mounted: list[str] = []


def mount(mountpoint: str) -> None:
    mounted.append(mountpoint)
