-- Monitoring: what configurations trade on paper after their training, and what each look at them found.

CREATE TABLE paper_trades (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    configuration_id uuid NOT NULL REFERENCES trained_configurations (id),
    decision_time timestamptz NOT NULL,
    entry_time timestamptz NOT NULL,
    exit_time timestamptz NOT NULL,
    side text NOT NULL CHECK (side IN ('long', 'short')),
    entry_price finite_double NOT NULL,
    exit_price finite_double NOT NULL,
    stop_price finite_double NOT NULL,
    target_price finite_double,
    quantity finite_double NOT NULL,
    pnl finite_double NOT NULL,
    r_multiple finite_double NOT NULL,
    trade_return finite_double NOT NULL,
    adverse_selection finite_double NOT NULL,
    exit_reason text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz
);
CREATE UNIQUE INDEX paper_trades_current ON paper_trades (configuration_id, entry_time) WHERE superseded_at IS NULL;
COMMENT ON TABLE paper_trades IS 'Closed trades of configurations on candles that came after their training: nobody''s money.';
COMMENT ON COLUMN paper_trades.decision_time IS 'Open time of the candle whose close decided.';
COMMENT ON COLUMN paper_trades.adverse_selection IS 'How far price had gone against the trade by the close of its entry bar, in R, from 0 to 1.';
COMMENT ON COLUMN paper_trades.superseded_at IS 'When the candles below it had changed such that this trade would not have been made so; null while it stands.';

CREATE TABLE monitoring_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    configuration_id uuid NOT NULL REFERENCES trained_configurations (id),
    evaluated_at timestamptz NOT NULL DEFAULT now(),
    through timestamptz NOT NULL,
    n_trades integer NOT NULL CHECK (n_trades >= 0),
    figures jsonb NOT NULL,
    death_signals text[] NOT NULL,
    size_multiplier finite_double NOT NULL CHECK (size_multiplier BETWEEN 0 AND 1),
    verdict text NOT NULL,
    challenger jsonb,
    UNIQUE (configuration_id, through)
);
COMMENT ON TABLE monitoring_reports IS 'What each look at a configuration found. Append-only; one per configuration and last candle.';
COMMENT ON COLUMN monitoring_reports.through IS 'Close time of the last candle that was seen.';
COMMENT ON COLUMN monitoring_reports.death_signals IS 'Those that were on.';
COMMENT ON COLUMN monitoring_reports.size_multiplier IS 'Share of the full size that a bot may take: that of the stage, halved under adverse selection.';
COMMENT ON COLUMN monitoring_reports.challenger IS 'Another of its search''s best trials that beat it on candles after the training: parameters, p_value, sentence.';

CREATE TRIGGER monitoring_reports_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON monitoring_reports
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION refuse_other_trades() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.superseded_at IS NOT NULL OR to_jsonb(OLD) - 'superseded_at' <> to_jsonb(NEW) - 'superseded_at' THEN
        RAISE EXCEPTION 'paper_trades: a trade may only be superseded, once' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER paper_trades_never_overwritten
    BEFORE UPDATE ON paper_trades FOR EACH ROW EXECUTE FUNCTION refuse_other_trades();
CREATE TRIGGER paper_trades_never_deleted
    BEFORE DELETE OR TRUNCATE ON paper_trades FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
