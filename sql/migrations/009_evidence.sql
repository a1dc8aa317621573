-- The evidence of configurations, and what the other trainings of their job make of it.

ALTER TABLE trained_configurations
    ADD COLUMN evidence jsonb,
    ADD COLUMN tested_p_value finite_double CHECK (tested_p_value BETWEEN 0 AND 1),
    ADD COLUMN corrected_p_value finite_double CHECK (corrected_p_value BETWEEN 0 AND 1),
    ADD COLUMN bonferroni_p_value finite_double CHECK (bonferroni_p_value BETWEEN 0 AND 1);
COMMENT ON COLUMN trained_configurations.evidence IS 'What tells the out-of-sample record from luck: statistics, and the tables behind them.';
COMMENT ON COLUMN trained_configurations.tested_p_value IS 'The larger of the normal and the bootstrap p-value of the mean trade.';
COMMENT ON COLUMN trained_configurations.corrected_p_value IS 'That after Benjamini and Hochberg (1995) over all trainings of the job; those not finished count as failures.';
COMMENT ON COLUMN trained_configurations.bonferroni_p_value IS 'The same after Bonferroni.';

CREATE OR REPLACE FUNCTION refuse_overwriting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change CONSTANT text[] := ARRAY[
        'is_active', 'lifecycle_stage', 'stale_at', 'stale_reason', 'stale_candles',
        'corrected_p_value', 'bonferroni_p_value'
    ];
BEGIN
    IF to_jsonb(OLD) - may_change <> to_jsonb(NEW) - may_change THEN
        RAISE EXCEPTION 'trained_configurations: only % may change; store a new version', array_to_string(may_change, ', ')
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.stale_at IS NOT NULL AND (NEW.stale_at, NEW.stale_reason) IS DISTINCT FROM (OLD.stale_at, OLD.stale_reason) THEN
        RAISE EXCEPTION 'trained_configurations: what is stale stays so; store a new version'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
