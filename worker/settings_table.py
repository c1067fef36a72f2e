"""The table of all settings, for the documentation."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from worker.settings import Settings, variable_of

_DEFAULTS_IN_WORDS = {
    "spool_dir": "the system's folder for temporary files",
    "plans_dir": "`~/.cache/leukoflow/plans`",
}


def settings_table() -> str:
    """Return the Markdown table of all settings: variable, default, what it is."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{variable_of(name)}` | {_default(name, field)} | {field.description} |")
    return "\n".join(lines) + "\n"


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if name in _DEFAULTS_IN_WORDS:
        return _DEFAULTS_IN_WORDS[name]
    if field.default is None:
        return ""
    return f"`{str(field.default).lower() if field.annotation is bool else field.default}`"
