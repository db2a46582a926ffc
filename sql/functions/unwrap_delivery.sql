-- needs: strip_bodies
CREATE OR REPLACE FUNCTION bisonsync_private.unwrap_delivery(body jsonb, store_bodies boolean)
RETURNS jsonb
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT CASE
        WHEN store_bodies OR jsonb_typeof(u.inner_body -> 'data') IS DISTINCT FROM 'object' THEN u.inner_body
        WHEN
            jsonb_typeof(u.inner_body #> '{data,reply}') = 'object'
            AND jsonb_typeof(u.inner_body #> '{data,scheduled_email}') = 'object'
            THEN u.inner_body || jsonb_build_object('data', (u.inner_body -> 'data') || jsonb_build_object(
                'reply', bisonsync_private.strip_bodies(u.inner_body #> '{data,reply}'),
                'scheduled_email', bisonsync_private.strip_bodies(u.inner_body #> '{data,scheduled_email}')
            ))
        WHEN jsonb_typeof(u.inner_body #> '{data,scheduled_email}') = 'object'
            THEN u.inner_body || jsonb_build_object('data', (u.inner_body -> 'data') || jsonb_build_object(
                'scheduled_email', bisonsync_private.strip_bodies(u.inner_body #> '{data,scheduled_email}')
            ))
        WHEN jsonb_typeof(u.inner_body #> '{data,reply}') = 'object'
            THEN u.inner_body || jsonb_build_object('data', (u.inner_body -> 'data') || jsonb_build_object(
                'reply', bisonsync_private.strip_bodies(u.inner_body #> '{data,reply}')
            ))
        ELSE u.inner_body
    END
    FROM (
        SELECT CASE
            WHEN jsonb_typeof(body) IS DISTINCT FROM 'object' OR body ? 'event' THEN body
            WHEN jsonb_typeof(body -> 'data') = 'object' AND (body -> 'data') ? 'event' THEN body -> 'data'
            WHEN jsonb_typeof(body -> 'payload') = 'object' AND (body -> 'payload') ? 'event' THEN body -> 'payload'
            ELSE body
        END AS inner_body
        OFFSET 0
    ) AS u
$$;

COMMENT ON FUNCTION bisonsync_private.unwrap_delivery(jsonb, boolean) IS
    'The {event, data} of a delivery, also out of {data: …} and {payload: …}, its mail bodies stripped unless they are to be kept; what is no such thing stays as it is.';
