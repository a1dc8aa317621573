-- Trained configurations with their evidence and lineage, and the history of their lifecycle stages.

CREATE DOMAIN lifecycle_stage AS varchar(20)
    CHECK (VALUE IN ('PAPER', 'DISCOVERY', 'VALIDATION', 'MATURE', 'DECAY'));

CREATE TABLE trained_configurations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    training_job_id uuid NOT NULL REFERENCES training_jobs (id),
    strategy_name varchar(100) NOT NULL,
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    lifecycle_stage lifecycle_stage NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    is_simulated boolean NOT NULL,

    net_profit finite_double,
    sharpe_ratio finite_double,
    sortino_ratio finite_double,
    calmar_ratio finite_double,
    max_drawdown finite_double,
    win_rate finite_double,
    gross_win_rate finite_double,
    average_win finite_double,
    average_loss finite_double,
    profit_factor finite_double,
    sample_size integer,
    p_value finite_double,
    z_score finite_double,
    deflated_sharpe_ratio finite_double,
    probability_of_backtest_overfitting finite_double,
    adverse_selection_score finite_double,
    fill_rate finite_double,

    parameters jsonb NOT NULL,
    in_sample_metrics jsonb NOT NULL,
    out_of_sample_metrics jsonb NOT NULL,
    windows jsonb NOT NULL,
    template jsonb NOT NULL,

    data_fingerprint text NOT NULL,
    data_start timestamptz NOT NULL,
    data_end timestamptz NOT NULL,
    code_version text NOT NULL,
    engine_hash text NOT NULL,
    dependency_versions jsonb NOT NULL,
    seed bigint NOT NULL,
    optimizer varchar(20) NOT NULL,
    settings jsonb NOT NULL,
    n_trials bigint NOT NULL,
    run_id text NOT NULL,

    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (strategy_name, exchange, pair, timeframe, version)
);
CREATE UNIQUE INDEX trained_configurations_active
    ON trained_configurations (strategy_name, exchange, pair, timeframe) WHERE is_active;
CREATE INDEX trained_configurations_job ON trained_configurations (training_job_id);
CREATE INDEX trained_configurations_created_at ON trained_configurations (created_at DESC);
CREATE INDEX trained_configurations_stage ON trained_configurations (lifecycle_stage);
COMMENT ON TABLE trained_configurations IS 'One row per strategy, series and version. Figures are out-of-sample; a newer version supersedes, nothing is overwritten.';
COMMENT ON COLUMN trained_configurations.is_active IS 'Whether this is the latest version.';
COMMENT ON COLUMN trained_configurations.is_simulated IS 'Trained on simulated candles.';
COMMENT ON COLUMN trained_configurations.windows IS 'Results of the single windows.';
COMMENT ON COLUMN trained_configurations.template IS 'The V3 document that a trading bot reads.';
COMMENT ON COLUMN trained_configurations.data_fingerprint IS 'Hash of the candles that were trained on.';
COMMENT ON COLUMN trained_configurations.data_start IS 'Open time of the first candle.';
COMMENT ON COLUMN trained_configurations.data_end IS 'Close time of the last candle.';
COMMENT ON COLUMN trained_configurations.engine_hash IS 'Hash of the code that computes results.';
COMMENT ON COLUMN trained_configurations.settings IS 'The training settings, the optimiser''s among them: what a replay repeats.';
COMMENT ON COLUMN trained_configurations.n_trials IS 'Trials that the searches behind this configuration made.';
COMMENT ON COLUMN trained_configurations.run_id IS 'The orchestrator''s run.';

CREATE TABLE lifecycle_transitions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    configuration_id uuid NOT NULL REFERENCES trained_configurations (id),
    from_stage lifecycle_stage,
    to_stage lifecycle_stage NOT NULL,
    reason text NOT NULL,
    figures jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX lifecycle_transitions_configuration ON lifecycle_transitions (configuration_id, id);
COMMENT ON TABLE lifecycle_transitions IS 'Every stage that a configuration took, why, and the figures that decided it. Append-only.';
COMMENT ON COLUMN lifecycle_transitions.from_stage IS 'Null: the stage that the configuration was stored with.';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER lifecycle_transitions_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON lifecycle_transitions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER trained_configurations_never_deleted
    BEFORE DELETE OR TRUNCATE ON trained_configurations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION refuse_overwriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(OLD) - ARRAY['is_active', 'lifecycle_stage'] <> to_jsonb(NEW) - ARRAY['is_active', 'lifecycle_stage'] THEN
        RAISE EXCEPTION 'trained_configurations: only is_active and lifecycle_stage may change; store a new version'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER trained_configurations_never_overwritten
    BEFORE UPDATE ON trained_configurations
    FOR EACH ROW EXECUTE FUNCTION refuse_overwriting();
