"""The reference of the command line, made of the commands themselves."""

import inspect

import click

from jaxrobust.cli import cli


def page() -> str:
    """Returns the page: every command with its help, examples and options."""
    parts = ["# Commands and options", "The same texts as `jaxrobust COMMAND --help`."]
    for path, command in _every(cli, "jaxrobust"):
        parts += [f"## {path}", *_help(command), *_options(path, command)]
    return "\n\n".join(parts) + "\n"


def _every(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    for name, inner in sorted(command.commands.items()) if isinstance(command, click.Group) else ():
        found += _every(inner, f"{path} {name}")
    return found


def _help(command: click.Command) -> list[str]:
    parts = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        literal, mark, lines = paragraph.partition("\b\n")
        parts.append(f"```bash\n{lines.strip()}\n```" if mark and not literal else paragraph)
    return parts


def _options(path: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=path)
    usage = f"Usage: `{' '.join([path, *command.collect_usage_pieces(context)])}`"
    records = [p.get_help_record(context) for p in command.params]
    items = [f"- `{record[0]}`: {record[1]}".replace("<", "&lt;") for record in records if record]
    return [usage, "\n".join(items)]
