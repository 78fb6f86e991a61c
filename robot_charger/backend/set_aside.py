"""What the CSMS did not take: `robot-charger queue STORE` lists it, tries it again or gives it up.

    robot-charger queue STORE                 list what is set aside
    robot-charger queue STORE retry N...      try these again (all: every one)
    robot-charger queue STORE drop N...       give these up for good

STORE is the back end's store (parameter ``store``). The node may run meanwhile; it sees the change within two seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from robot_charger.backend.store import Store, StoreError


def lines(store: Store) -> list[str]:
    """One line per message: number, event, transaction, time, why."""
    found = []
    for number, event, transaction_id, body, error in store.set_aside():
        content = json.loads(body)
        what = content[0] if isinstance(content, list) else event
        time = content.get("time", "") if isinstance(content, dict) else ""
        found.append(f"{number:8d}  {what:<12}  {transaction_id or '-':<36}  {time:<24}  {error}")
    return found


@click.command(help=__doc__.split("STORE is")[0].replace("\n\n    ", "\n\n\b\n    ") if __doc__ else "")
@click.argument("store", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("what", type=click.Choice(("list", "retry", "drop")), default="list")
@click.argument("numbers", nargs=-1)
def command(store: Path, what: str, numbers: tuple[str, ...]) -> None:
    path = store.expanduser()
    if not path.is_file():
        raise click.BadParameter(f"there is no store {path}", param_hint="STORE")
    try:
        opened = Store(path)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    try:
        status = act(opened, what, list(numbers))
    except ValueError as error:
        raise click.BadParameter("numbers as listed, or all", param_hint="NUMBERS") from error
    finally:
        opened.close()
    sys.exit(status)


def act(store: Store, what: str, wanted: list[str]) -> int:
    """The command's exit status. Raises ValueError for a number that is none."""
    if what == "list":
        found = lines(store)
        click.echo("\n".join(found) if found else "nothing is set aside")
        return 0
    known = [row[0] for row in store.set_aside()]
    numbers = known if wanted == ["all"] else [int(n) for n in wanted]
    if not numbers:
        raise ValueError("no number")
    missing = [n for n in numbers if n not in known]
    chosen = [n for n in numbers if n in known]
    if what == "retry":
        store.recall(chosen)
    else:
        for number in chosen:
            store.drop(number)
    click.echo(f"{what}: {len(chosen)} messages" + (f"; not set aside: {missing}" if missing else ""))
    return 1 if missing else 0


if __name__ == "__main__":
    command()
