-- needs: strip_bodies
CREATE OR REPLACE FUNCTION bisonsync_private.unwrap_delivery(body jsonb, store_bodies boolean)
RETURNS TABLE (unwrapped jsonb)
LANGUAGE sql
STABLE
AS $$
    SELECT CASE
        WHEN p.has_bodies THEN p.unwrapped || jsonb_build_object(
            'data',
            p.part
            || CASE
                WHEN jsonb_typeof(p.reply) = 'object'
                    THEN jsonb_build_object('reply', bisonsync_private.strip_bodies(p.reply))
                ELSE '{}'
            END
            || CASE
                WHEN jsonb_typeof(p.scheduled_email) = 'object'
                    THEN jsonb_build_object('scheduled_email', bisonsync_private.strip_bodies(p.scheduled_email))
                ELSE '{}'
            END
        )
        ELSE p.unwrapped
    END
    FROM (
        SELECT
            q.*,
            NOT store_bodies
            AND (
                jsonb_typeof(q.scheduled_email -> 'email_body') = 'string'
                OR jsonb_typeof(q.reply -> 'html_body') = 'string'
                OR jsonb_typeof(q.reply -> 'text_body') = 'string'
                OR jsonb_typeof(q.reply -> 'raw_body') = 'string'
                OR jsonb_typeof(q.reply -> 'email_body') = 'string'
                OR jsonb_typeof(q.scheduled_email -> 'html_body') = 'string'
                OR jsonb_typeof(q.scheduled_email -> 'text_body') = 'string'
                OR jsonb_typeof(q.scheduled_email -> 'raw_body') = 'string'
            ) AS has_bodies
        FROM (
            SELECT w.unwrapped, w.part, w.part -> 'reply' AS reply, w.part -> 'scheduled_email' AS scheduled_email
            FROM (
                SELECT u.unwrapped, u.unwrapped -> 'data' AS part
                FROM (
                    SELECT CASE
                        WHEN body ? 'event' OR jsonb_typeof(body) IS DISTINCT FROM 'object' THEN body
                        WHEN jsonb_typeof(body -> 'data') = 'object' AND (body -> 'data') ? 'event' THEN body -> 'data'
                        WHEN jsonb_typeof(body -> 'payload') = 'object' AND (body -> 'payload') ? 'event'
                            THEN body -> 'payload'
                        ELSE body
                    END AS unwrapped
                    OFFSET 0
                ) AS u
                OFFSET 0
            ) AS w
            OFFSET 0
        ) AS q
        OFFSET 0
    ) AS p
$$;

COMMENT ON FUNCTION bisonsync_private.unwrap_delivery(jsonb, boolean) IS
    'The {event, data} of a delivery, also out of {data: …} and {payload: …}, its mail bodies stripped unless they are to be kept; what is no such thing stays as it is.';
