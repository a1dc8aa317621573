-- The trials of a search are a folder of Parquet files, written as the trials are made.

COMMENT ON TABLE searches IS 'The search of one run over one series, and the folder with all its trials.';
COMMENT ON COLUMN searches.trials_path IS 'Folder: trials/*.parquet holds all trials, blocks/*.parquet the sums of daily returns over 16 blocks of days, per parameter set.';
COMMENT ON COLUMN searches.trials_sha256 IS 'SHA-256, in hexadecimal digits, of what sha256sum *.parquet prints in the folder trials.';
COMMENT ON COLUMN searches.n_trials IS 'Rows in these files: the trials made, invalid ones included.';
