"""What RecBole 1.2 needs in order to run on today's libraries, one small function a fault.

Each function names the line of RecBole that it mends and does nothing where RecBole or the library
no longer needs it. None of them holds a copy of RecBole's code.
"""

from __future__ import annotations

from recbole_m3rec.plugin.mends import checkpoints, libraries, runs, tables

MENDS = (
    runs.train_without_tracing,  # before anything else imports RecBole's models
    libraries.stand_in_for_ray,  # RecBole's quick start cannot be imported without
    libraries.name_numpy_scalars,
    libraries.restore_dok_update,
    libraries.draw_trials_as_hyperopt_does,
    tables.fill_blanks_by_assignment,
    tables.read_text_as_objects,
    tables.measure_lists_one_by_one,
    tables.keep_order_of_equal_times,
    checkpoints.read_whole_checkpoints,
    checkpoints.load_on_this_machine,
    runs.download_without_process_group,
    runs.collect_plain_values,
    runs.report_plain_numbers,
    runs.survive_uncountable_flops,
    runs.name_every_checkpoint_apart,
    runs.train_in_bfloat16,
    runs.keep_quiet_of_what_nobody_can_change,
    runs.log_what_ract_loads,
)


def apply() -> None:
    """Apply every mend; called once, by the registration."""
    for mend in MENDS:
        mend()
