-- Searches: the file that holds all trials of each, and the best of them as rows.

CREATE TABLE searches (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    training_job_id uuid NOT NULL REFERENCES training_jobs (id),
    strategy_name varchar(100) NOT NULL,
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    run_id text NOT NULL,
    trials_path text NOT NULL,
    trials_sha256 char(64) NOT NULL,
    n_trials bigint NOT NULL CHECK (n_trials >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (training_job_id, strategy_name, exchange, pair, timeframe, run_id)
);
COMMENT ON TABLE searches IS 'The search of one run over one series, and the Parquet file of all its trials.';
COMMENT ON COLUMN searches.trials_sha256 IS 'SHA-256 of the file''s bytes, in hexadecimal digits.';
COMMENT ON COLUMN searches.n_trials IS 'Rows in the file: the trials made, invalid ones included.';

CREATE TABLE trials (
    search_id bigint NOT NULL REFERENCES searches (id) ON DELETE CASCADE,
    window_index integer NOT NULL,
    rank integer NOT NULL CHECK (rank >= 1),
    combination bigint NOT NULL,
    objective finite_double NOT NULL,
    parameters jsonb NOT NULL,
    metrics jsonb NOT NULL,
    PRIMARY KEY (search_id, window_index, rank)
);
COMMENT ON TABLE trials IS 'The best valid trials of a search, per train window.';
COMMENT ON COLUMN trials.window_index IS 'Walk-forward window, counted from 0; -1 is the latest train window, whose best trial is stored.';
COMMENT ON COLUMN trials.combination IS 'Number of the parameter set in the strategy''s grid.';
