-- Candles that a person judged, configurations that outlived theirs, and the turns of those who ask a venue.

ALTER TABLE market_data_quarantine RENAME COLUMN released_at TO decided_at;
ALTER TABLE market_data_quarantine
    ALTER COLUMN row_number DROP NOT NULL,
    ADD COLUMN "timestamp" timestamptz,
    ADD COLUMN decision text CHECK (decision IN ('released', 'dismissed'));
UPDATE market_data_quarantine SET decision = 'dismissed' WHERE decided_at IS NOT NULL;
ALTER TABLE market_data_quarantine
    ADD CONSTRAINT market_data_quarantine_decided CHECK ((decision IS NULL) = (decided_at IS NULL)),
    ADD CONSTRAINT market_data_quarantine_origin CHECK ((row_number IS NULL) <> ("timestamp" IS NULL));
CREATE INDEX market_data_quarantine_set_aside ON market_data_quarantine (exchange, pair, timeframe, "timestamp")
    WHERE "timestamp" IS NOT NULL AND decision IS DISTINCT FROM 'released';
COMMENT ON TABLE market_data_quarantine IS 'Rows that break the data contract, and candles that a person set aside, as they came, with the reason.';
COMMENT ON COLUMN market_data_quarantine.row_number IS 'Row within the source, counted from 0; null for a candle that a person set aside.';
COMMENT ON COLUMN market_data_quarantine."timestamp" IS 'Open time of a candle that a person set aside, which does not come back by itself; null for a row that was refused.';
COMMENT ON COLUMN market_data_quarantine.decision IS 'released: it is a candle now; dismissed: it stays here and needs no more attention.';
COMMENT ON COLUMN market_data_quarantine.decided_at IS 'When somebody decided so.';

CREATE TABLE market_data_confirmed (
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    "timestamp" timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    confirmed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exchange, pair, timeframe, "timestamp")
);
COMMENT ON TABLE market_data_confirmed IS 'Candles that a person called true. It holds for these values: a restated candle is another one.';

ALTER TABLE trained_configurations
    ADD COLUMN data_warnings jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(data_warnings) = 'array'),
    ADD COLUMN stale_at timestamptz,
    ADD COLUMN stale_reason text,
    ADD COLUMN stale_candles bigint NOT NULL DEFAULT 0 CHECK (stale_candles >= 0),
    ADD CONSTRAINT trained_configurations_stale CHECK ((stale_at IS NULL) = (stale_reason IS NULL));
CREATE INDEX trained_configurations_series ON trained_configurations (exchange, pair, timeframe);
COMMENT ON COLUMN trained_configurations.data_warnings IS 'What was notable about the candles that were trained on: an array of sentences.';
COMMENT ON COLUMN trained_configurations.stale_at IS 'When the candles that were trained on first turned into others; null while they are the stored ones.';
COMMENT ON COLUMN trained_configurations.stale_reason IS 'That first change, in a sentence.';
COMMENT ON COLUMN trained_configurations.stale_candles IS 'Candles in its range that were restated, added or removed since, each time counted.';

CREATE OR REPLACE FUNCTION refuse_overwriting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change CONSTANT text[] := ARRAY['is_active', 'lifecycle_stage', 'stale_at', 'stale_reason', 'stale_candles'];
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

CREATE UNLOGGED TABLE request_turns (
    venue text PRIMARY KEY,
    next_at timestamptz NOT NULL
);
COMMENT ON TABLE request_turns IS 'When the next request to a venue may start, whoever makes it. Nothing is lost with it.';
