-- name: list_tokens
-- The stored tokens, whatever was last known of them.
SELECT bison_instance, bison_workspace_id, token, status
FROM bisonsync_private.workspace_tokens
WHERE token IS NOT NULL
ORDER BY bison_instance, bison_workspace_id;

-- name: open_intent
-- Notes that a token is about to be made, before it is; the note's id.
INSERT INTO bisonsync_private.token_intents (bison_instance, bison_workspace_id, token_name)
VALUES (%(instance)s::text, %(workspace_id)s::bigint, %(token_name)s::text)
RETURNING id;

-- name: close_intent
-- Notes how making a token ended.
UPDATE bisonsync_private.token_intents
SET outcome = %(outcome)s::text, detail = %(detail)s::text
WHERE id = %(intent_id)s::bigint;

-- name: list_open_intents
-- Tokens that may have been made and were never stored: whoever asked for them ended before the answer came.
SELECT id, bison_instance, bison_workspace_id, token_name, intent_at
FROM bisonsync_private.token_intents
WHERE outcome IS NULL
ORDER BY intent_at;

-- name: store_token
-- Keeps a workspace's token, in place of an older one.
INSERT INTO bisonsync_private.workspace_tokens AS t (
    bison_instance, bison_workspace_id, token, token_name, bison_token_id, status, minted_at, verified_at
)
VALUES (
    %(instance)s::text, %(workspace_id)s::bigint, %(token)s::text, %(token_name)s::text, %(bison_token_id)s::bigint,
    %(status)s::text, now(), CASE WHEN %(status)s::text = 'valid' THEN now() END
)
ON CONFLICT (bison_instance, bison_workspace_id) DO UPDATE SET
    token = excluded.token,
    token_name = excluded.token_name,
    bison_token_id = excluded.bison_token_id,
    status = excluded.status,
    intent_at = now(),
    minted_at = excluded.minted_at,
    verified_at = excluded.verified_at,
    last_error = NULL;

-- name: set_token_status
-- Notes what the API said of a stored token; a row that says the same already is not touched.
UPDATE bisonsync_private.workspace_tokens
SET
    status = %(status)s::text,
    last_error = %(error)s::text,
    verified_at = CASE WHEN %(status)s::text = 'valid' THEN now() ELSE verified_at END
WHERE
    bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND (status, last_error) IS DISTINCT FROM (%(status)s::text, %(error)s::text);
