"""Parameters with nothing in them: every section of params.yaml that holds entries, empty."""

from typing import get_origin, get_type_hints

from pipeline.params import Params

EMPTY: dict[str, dict] = {name: {} for name, kind in get_type_hints(Params).items() if get_origin(kind) is dict}
