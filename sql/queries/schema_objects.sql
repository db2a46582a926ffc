-- name: list_objects
-- The views and functions of ours that are there, with the checksum of their text; locks nothing.
SELECT name, identity, checksum
FROM public.bisonsync_objects
WHERE CASE WHEN strpos(identity, '(') > 0 THEN to_regprocedure(identity) IS NOT NULL ELSE to_regclass(identity) IS NOT NULL END
ORDER BY name;

-- name: upsert_object
-- Records the text that an object was made from.
INSERT INTO public.bisonsync_objects (name, identity, checksum, bisonsync_version)
VALUES (%(name)s::text, %(identity)s::text, %(checksum)s::text, %(bisonsync_version)s::text)
ON CONFLICT (name) DO UPDATE SET
    identity = excluded.identity,
    checksum = excluded.checksum,
    changed_at = now(),
    bisonsync_version = excluded.bisonsync_version;

-- name: list_functions
-- Name with argument types of every function of this name; locks nothing.
SELECT p.oid::regprocedure::text AS identity
FROM pg_proc AS p
WHERE
    p.pronamespace = to_regnamespace(quote_ident(split_part(%(name)s::text, '.', 1)))
    AND p.proname = split_part(%(name)s::text, '.', 2)
ORDER BY identity;

-- name: list_dependents
-- A view, and those of the given views that stand on it at any depth; locks nothing.
WITH RECURSIVE standing AS (
    SELECT to_regclass(%(name)s::text)::oid AS view
    UNION
    SELECT r.ev_class
    FROM standing AS s
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.view
    INNER JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
)

SELECT w.name
FROM unnest(%(views)s::text[]) AS w (name)
INNER JOIN standing AS s ON s.view = to_regclass(w.name)::oid;

-- name: spell_drop
-- The statement that drops one function, or these views together; locks nothing.
SELECT
    CASE WHEN bool_or(strpos(i.identity, '(') > 0) THEN 'DROP FUNCTION ' ELSE 'DROP VIEW ' END
    || string_agg(i.identity, ', ')
FROM unnest(%(identities)s::text[]) AS i (identity);

-- name: list_grants
-- Statements that give back what others than the owner may do with these views and functions; locks nothing.
WITH objects AS (
    SELECT i.identity, 'TABLE' AS kind, c.relowner AS owner, c.relacl AS acl
    FROM unnest(%(identities)s::text[]) AS i (identity)
    INNER JOIN pg_class AS c ON c.oid = CASE WHEN strpos(i.identity, '(') = 0 THEN to_regclass(i.identity) END
    UNION ALL
    SELECT i.identity, 'FUNCTION', p.proowner, p.proacl
    FROM unnest(%(identities)s::text[]) AS i (identity)
    INNER JOIN pg_proc AS p ON p.oid = CASE WHEN strpos(i.identity, '(') > 0 THEN to_regprocedure(i.identity) END
)

SELECT
    o.identity,
    concat_ws(' ', 'GRANT', a.privilege_type, 'ON', o.kind, o.identity, 'TO', coalesce(quote_ident(r.rolname), 'PUBLIC'))
    || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS statement
FROM objects AS o
CROSS JOIN LATERAL aclexplode(o.acl) AS a
LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE a.grantee <> o.owner;

-- name: has_access_rules
-- Whether the functions that know the access rules are there; locks nothing.
SELECT to_regprocedure('bisonsync_private.access_changes(jsonb)') IS NOT NULL;

-- name: list_access_changes
-- Statements that would bring grants, policies and publication to what the rules say; locks nothing.
SELECT statement
FROM bisonsync_private.access_changes(%(readers)s::jsonb) AS statement;

-- name: list_unpublished
-- Tables that Realtime's publication lacks although the rules say it should have them; locks nothing.
SELECT l.identity
FROM bisonsync_private.access_list() AS l
INNER JOIN pg_publication AS b ON b.pubname = 'supabase_realtime'
WHERE
    l.is_published
    AND NOT EXISTS (
        SELECT FROM pg_publication_tables AS x
        WHERE x.pubname = b.pubname AND x.schemaname || '.' || x.tablename = l.identity
    )
ORDER BY l.identity;

-- name: list_exposed
-- What of ours anybody who reaches the database may use, found by what the catalogs hold and not by any rule of how names
-- are spelled; locks nothing.
WITH ours AS (
    SELECT c.oid, c.relnamespace AS namespace, c.relname AS name, c.relacl AS acl
    FROM pg_class AS c
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT p.oid, p.pronamespace, p.proname, coalesce(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc AS p
)

SELECT DISTINCT n.nspname || '.' || o.name AS identity
FROM ours AS o
INNER JOIN pg_namespace AS n ON n.oid = o.namespace
CROSS JOIN LATERAL aclexplode(o.acl) AS a
LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE
    (
        n.nspname = 'bisonsync_private'
        OR (n.nspname = 'public' AND EXISTS (
            SELECT FROM bisonsync_private.access_list() AS l WHERE l.identity = n.nspname || '.' || o.name
        ))
    )
    AND (a.grantee = 0 OR r.rolname = 'anon')
ORDER BY identity;
