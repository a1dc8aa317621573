-- What sources do not have, and how far they disagree with the candles that are stored.

CREATE TABLE absent_candles (
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    source text NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exchange, pair, timeframe, source, start_at, end_at),
    CHECK (start_at < end_at)
);
COMMENT ON TABLE absent_candles IS 'Spans of open times that a source was asked for and had no candle of: it is not asked again for a while.';

CREATE TABLE source_deviations (
    exchange text NOT NULL,
    pair text NOT NULL,
    timeframe text NOT NULL,
    source text NOT NULL,
    against text NOT NULL,
    figures jsonb NOT NULL,
    sentence text NOT NULL,
    is_notable boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exchange, pair, timeframe, source, against)
);
COMMENT ON TABLE source_deviations IS 'The latest comparison of two sources'' candles of a series, where both gave the same ones.';
COMMENT ON COLUMN source_deviations.against IS 'Where the stored candles came from.';
