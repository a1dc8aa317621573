-- Training jobs: one per request to train, with the series that it covers.

CREATE DOMAIN finite_double AS double precision CHECK (VALUE > '-Infinity' AND VALUE < 'Infinity');
COMMENT ON DOMAIN finite_double IS 'A number that is neither NaN nor infinite; a figure that is undefined is null.';

CREATE DOMAIN training_status AS varchar(20)
    CHECK (VALUE IN ('pending', 'running', 'completed', 'failed', 'cancelled'));

CREATE TABLE training_jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id varchar(50) NOT NULL,
    strategy_name varchar(100) NOT NULL,
    status training_status NOT NULL DEFAULT 'pending',
    config jsonb NOT NULL,
    total_combinations bigint NOT NULL DEFAULT 0,
    completed_combinations bigint NOT NULL DEFAULT 0,
    failed_combinations bigint NOT NULL DEFAULT 0,
    configurations_created integer NOT NULL DEFAULT 0,
    best_net_profit finite_double,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    completed_at timestamptz,
    error_message text,
    run_ids text[] NOT NULL DEFAULT '{}',
    seed bigint NOT NULL,
    code_version text NOT NULL,
    progress jsonb
);
CREATE INDEX training_jobs_user_id ON training_jobs (user_id);
CREATE INDEX training_jobs_status ON training_jobs (status);
CREATE INDEX training_jobs_created_at ON training_jobs (created_at DESC);
COMMENT ON TABLE training_jobs IS 'Requests to train a strategy. Status, counts and errors sum up training_job_series.';
COMMENT ON COLUMN training_jobs.config IS 'The whole training configuration.';
COMMENT ON COLUMN training_jobs.run_ids IS 'The orchestrator''s runs that worked on the job, the first one first.';
COMMENT ON COLUMN training_jobs.progress IS 'The latest progress that a series of the job reported.';

CREATE TABLE training_job_series (
    training_job_id uuid NOT NULL REFERENCES training_jobs (id),
    strategy_name varchar(100) NOT NULL,
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    run_id text,
    former_run_ids text[] NOT NULL DEFAULT '{}',
    status training_status NOT NULL DEFAULT 'pending',
    total_combinations bigint NOT NULL DEFAULT 0 CHECK (total_combinations >= 0),
    completed_combinations bigint NOT NULL DEFAULT 0 CHECK (completed_combinations >= 0),
    failed_combinations bigint NOT NULL DEFAULT 0 CHECK (failed_combinations >= 0),
    best_net_profit finite_double,
    data_fingerprint text,
    progress jsonb,
    started_at timestamptz,
    completed_at timestamptz,
    error_message text,
    PRIMARY KEY (training_job_id, strategy_name, exchange, pair, timeframe)
);
CREATE INDEX training_job_series_running ON training_job_series (run_id) WHERE status = 'running';
COMMENT ON TABLE training_job_series IS 'The series that a training job covers, each with its own state.';
COMMENT ON COLUMN training_job_series.run_id IS 'The run that works on the series; what former runs still report is refused.';
COMMENT ON COLUMN training_job_series.data_fingerprint IS 'Hash of the candles that were trained on.';
