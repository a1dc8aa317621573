-- Candles: the current ones, what they were before a restatement, and the rows that were refused.

CREATE TABLE market_data (
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    "timestamp" timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    is_filled boolean NOT NULL DEFAULT false,
    source text NOT NULL,
    ingested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exchange, pair, timeframe, "timestamp"),
    -- NaN is greater than infinity in PostgreSQL, so that an upper bound refuses both.
    CONSTRAINT market_data_prices CHECK (
        low > 0 AND low <= LEAST(open, close) AND high >= GREATEST(open, close) AND high < 'Infinity'
    ),
    CONSTRAINT market_data_volume CHECK (volume >= 0 AND volume < 'Infinity'),
    CONSTRAINT market_data_grid CHECK (
        mod(extract(epoch FROM "timestamp"), extract(epoch FROM timeframe::interval)) = 0
    )
);
COMMENT ON TABLE market_data IS 'Closed candles, one row per series and open time; a restated candle leaves its former values in market_data_revisions.';
COMMENT ON COLUMN market_data."timestamp" IS 'Open time of the candle.';
COMMENT ON COLUMN market_data.volume IS 'In base currency.';
COMMENT ON COLUMN market_data.is_filled IS 'Filled forward from the candle before, not traded.';
COMMENT ON COLUMN market_data.source IS 'Where the candle came from: an exchange''s API, a file, the simulation.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable('market_data', 'timestamp', chunk_time_interval => interval '30 days');
    END IF;
END
$$;

CREATE TABLE market_data_revisions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    "timestamp" timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    is_filled boolean NOT NULL,
    source text NOT NULL,
    ingested_at timestamptz NOT NULL,
    restated_at timestamptz NOT NULL DEFAULT now(),
    restated_by text NOT NULL
);
CREATE INDEX market_data_revisions_series ON market_data_revisions (exchange, pair, timeframe, "timestamp");
COMMENT ON TABLE market_data_revisions IS 'Former values of candles that a source restated later.';
COMMENT ON COLUMN market_data_revisions.restated_by IS 'Source of the values that took the place of these.';

CREATE TABLE market_data_quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    source text NOT NULL,
    row_number bigint NOT NULL,
    raw jsonb NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    released_at timestamptz
);
CREATE UNIQUE INDEX market_data_quarantine_once
    ON market_data_quarantine (exchange, pair, timeframe, source, row_number, reason, md5(raw::text));
COMMENT ON TABLE market_data_quarantine IS 'Rows that break the data contract, as they came, with the rule that they break.';
COMMENT ON COLUMN market_data_quarantine.row_number IS 'Row within the source, counted from 0.';
COMMENT ON COLUMN market_data_quarantine.released_at IS 'When somebody decided that this row needs no more attention.';
