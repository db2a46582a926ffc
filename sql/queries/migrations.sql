-- name: take_migrate_lock
-- Holds off every other migrate until this transaction ends, and makes unqualified names fail.
SELECT pg_advisory_xact_lock(7310586087843293299::bigint), set_config('search_path', 'pg_catalog', true);

-- name: has_ledger
-- Whether migrate has ever worked here; locks nothing.
SELECT to_regclass('public.bisonsync_migrations') IS NOT NULL;

-- name: find_blinded_role
-- Who we are, if we may read bisonsync's tables but row security hides their rows from us; locks nothing.
SELECT current_user::text
WHERE
    row_security_active(to_regclass('public.bisonsync_migrations'))
    AND has_table_privilege(to_regclass('public.bisonsync_migrations'), 'SELECT');

-- name: list_applied
-- What this database has had, in order; locks nothing.
SELECT version, name, checksum
FROM public.bisonsync_migrations
ORDER BY version;

-- name: insert_applied
-- Records a migration in its own transaction.
INSERT INTO public.bisonsync_migrations (version, name, checksum, duration_ms, bisonsync_version)
VALUES (
    %(version)s::integer,
    %(name)s::text,
    %(checksum)s::text,
    (extract(epoch FROM clock_timestamp() - now()) * 1000)::bigint,
    %(bisonsync_version)s::text
);

-- name: list_existing
-- Kind and name of every table, view or function that bears one of these names; locks nothing.
WITH wanted AS (
    SELECT to_regnamespace(quote_ident(split_part(w.name, '.', 1))) AS namespace, split_part(w.name, '.', 2) AS bare, w.name
    FROM unnest(%(names)s::text[]) AS w (name)
)

SELECT
    CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END
    || ' ' || w.name AS found
FROM wanted AS w
INNER JOIN pg_class AS c ON c.relnamespace = w.namespace AND c.relname = w.bare
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION
SELECT 'function ' || w.name
FROM wanted AS w
INNER JOIN pg_proc AS p ON p.pronamespace = w.namespace AND p.proname = w.bare
ORDER BY found;

-- name: list_default_grants
-- Statements that take from everybody what default privileges gave on all that this transaction has made; locks nothing.
WITH made AS (
    SELECT
        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
        c.relnamespace::regnamespace || '.' || quote_ident(c.relname) AS identity,
        coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
    FROM pg_class AS c
    WHERE c.xmin = pg_current_xact_id()::xid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'FUNCTION', p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc AS p
    WHERE p.xmin = pg_current_xact_id()::xid
    UNION ALL
    SELECT 'SCHEMA', quote_ident(n.nspname), coalesce(n.nspacl, acldefault('n', n.nspowner))
    FROM pg_namespace AS n
    WHERE n.xmin = pg_current_xact_id()::xid
)

SELECT DISTINCT concat_ws(' ', 'REVOKE ALL ON', m.kind, m.identity, 'FROM', coalesce(quote_ident(r.rolname), 'PUBLIC'))
FROM made AS m
CROSS JOIN LATERAL aclexplode(m.acl) AS a
LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE a.grantee = 0 OR r.rolname IN ('anon', 'authenticated');

-- name: get_schema_version
-- How many migrations this database has had, and the last one's number; locks nothing.
SELECT count(*)::integer AS applied, coalesce(max(version), 0) AS newest
FROM public.bisonsync_migrations;
