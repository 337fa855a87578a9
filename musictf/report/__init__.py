"""Tables, figures, pages, and the mirror in Weights & Biases. Calling the package makes a report from Python."""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    # `musictf.report(...)` is the public function beside `musictf.probe(...)`, and the import system puts this package
    # under the same name.
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `musictf.report.collected.collected_report`."""
        from musictf.report.collected import collected_report

        return collected_report(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
