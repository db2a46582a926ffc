-- name: list_secrets
-- Whose the stored secrets are; of each only its SHA-256 is known here.
SELECT secret_sha256, bison_instance, bison_workspace_id, retired_at
FROM bisonsync_private.webhook_secrets
ORDER BY made_at, secret_sha256;

-- name: add_secret
-- Keeps the SHA-256 of a new secret: from its commit on deliveries are taken under it.
INSERT INTO bisonsync_private.webhook_secrets (secret_sha256, bison_instance, bison_workspace_id)
VALUES (%(digest)s::bytea, %(instance)s::text, %(workspace_id)s::bigint);

-- name: retire_secrets
-- No deliveries are taken any more under these secrets of a workspace.
UPDATE bisonsync_private.webhook_secrets
SET retired_at = now()
WHERE
    bison_instance = %(instance)s::text
    AND bison_workspace_id = %(workspace_id)s::bigint
    AND secret_sha256 = ANY(%(digests)s::bytea[])
    AND retired_at IS NULL;

-- name: get_position
-- Which delivery came last, and the database's time: what is sent from here on comes after it.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS last_id, clock_timestamp() AS at
FROM public.webhook_delivery_log_id_seq;

-- name: find_test_delivery
-- What came under a workspace's secret after a delivery: a test if there is one, else the newest.
SELECT status, error_message
FROM public.webhook_delivery_log
WHERE
    id > %(last_id)s::bigint
    -- For the partitions alone: the receiver's clock may be wrong.
    AND received_at >= %(at)s::timestamptz - interval '1 day'
    AND hook_instance = %(instance)s::text
    AND hook_workspace_id = %(workspace_id)s::bigint
ORDER BY (status = 'test') DESC, id DESC
LIMIT 1;
