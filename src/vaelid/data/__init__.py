"""Data: sources, the choice of a likelihood, the split into parts, and what is written for users to read."""

from vaelid.data.covariates import Covariates
from vaelid.data.dataset import Dataset, Kind
from vaelid.data.schema import LIKELIHOODS, Choice, choose, grey_scale
from vaelid.data.sources import BUILT_IN, ENDINGS, load
from vaelid.data.split import Split, split, standard_split
from vaelid.data.writers import (
    TABLE_ENDINGS,
    check_images_path,
    check_table_path,
    load_arrays,
    save_arrays,
    table_beside,
    write_images,
    write_table,
)

__all__ = [
    "BUILT_IN",
    "ENDINGS",
    "LIKELIHOODS",
    "TABLE_ENDINGS",
    "Choice",
    "Covariates",
    "Dataset",
    "Kind",
    "Split",
    "check_images_path",
    "check_table_path",
    "choose",
    "grey_scale",
    "load",
    "load_arrays",
    "save_arrays",
    "split",
    "standard_split",
    "table_beside",
    "write_images",
    "write_table",
]
