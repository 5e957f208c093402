"""What can be known of a benchmark without its pictures: letters, answers, categories, and models that see nothing.

The paper's first finding is that many benchmarks barely need the image (arXiv 2406.16860, section 3); here a
CV-Bench is put to the same test. Reading order: items, orders, chance, priors, blind, filter, report; then tables and
files for what is shown and written. No model is known here: whoever answers is passed in as a callable.
"""

from cambrian_data.cvbench.audit.files import claim, to_dict, write, write_decisions
from cambrian_data.cvbench.audit.items import Item, read_items
from cambrian_data.cvbench.audit.orders import Guesser, Ordered, in_orders
from cambrian_data.cvbench.audit.report import Audit, Audited, audit
from cambrian_data.cvbench.audit.tables import Table, notes, tabulate

__all__ = [
    "Audit",
    "Audited",
    "Guesser",
    "Item",
    "Ordered",
    "Table",
    "audit",
    "claim",
    "in_orders",
    "notes",
    "read_items",
    "tabulate",
    "to_dict",
    "write",
    "write_decisions",
]
