"""Several operators of one site."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from straxflow.config.sections.base import Section


class Permissions(Section):
    """Who may read and change what straxflow writes, where several people operate a site. `straxflow init` gives the
    site's folders the group and the setgid bit, `straxflow check` looks after both.
    """

    group: str | None = Field(None, description="The Unix group to which all folders and files belong.")
    umask: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] | None = Field(
        None,
        description="Bits that files and folders do not get, in octal and in quotes: '0007' for the group alone, "
        "'0002' for others to read. Absent: that of the shell in which straxflow is started.",
    )
