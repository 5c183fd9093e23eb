"""The command line: ``main`` lists the subcommands, one module each.

Importing it prepares the process, for which it must come before torch.
"""

from recbole_m3rec.support.process_settings import prepare_process

prepare_process()
