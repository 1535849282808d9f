-- What people write, without what they delete or edit.
CREATE VIEW posts AS
SELECT event_time, did, uri, record->>'text' AS text, record->'langs'->>0 AS lang,
       record #>> '{facets,0,features,0,tag}' AS hashtag
FROM jetstream
WHERE collection = 'app.bsky.feed.post' AND operation = 'create';

-- Posts per minute and language, corrected while the minute lasts.
CREATE STREAMING VIEW posts_per_minute AS
SELECT window_start, coalesce(lang, '?') AS lang, count(*) AS posts, count(DISTINCT did) AS people
FROM TUMBLE(posts, event_time, INTERVAL '1 minute')
GROUP BY window_start, coalesce(lang, '?')
EMIT ON UPDATE;

-- The last minute's hashtags, every five seconds.
CREATE STREAMING VIEW top_hashtags AS
SELECT window_end, hashtag, count(*) AS uses, count(DISTINCT did) AS people
FROM HOP(posts, event_time, INTERVAL '5 seconds', INTERVAL '1 minute')
WHERE hashtag IS NOT NULL
GROUP BY window_end, hashtag;

-- Events per second by collection.
CREATE STREAMING VIEW rate_by_collection AS
SELECT window_start, collection, count(*) AS events, count(*) / 10.0 AS events_per_second
FROM TUMBLE(jetstream, event_time, INTERVAL '10 seconds')
WHERE kind = 'commit'
GROUP BY window_start, collection
EMIT ON UPDATE;
