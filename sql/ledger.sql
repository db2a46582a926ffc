-- What migrate records about itself. Made by migrate before the first migration, in the same transaction.

CREATE TABLE IF NOT EXISTS public.bisonsync_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    duration_ms bigint NOT NULL,
    bisonsync_version text NOT NULL
);

ALTER TABLE public.bisonsync_migrations ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.bisonsync_migrations IS 'The migrations of bisonsync that this database has had, one row per file. Never edited by hand.';
COMMENT ON INDEX public.bisonsync_migrations_pkey IS 'Key; every job counts the rows when it starts.';
COMMENT ON COLUMN public.bisonsync_migrations.version IS 'Number at the head of the file''s name.';
COMMENT ON COLUMN public.bisonsync_migrations.name IS 'Name of the file.';
COMMENT ON COLUMN public.bisonsync_migrations.checksum IS 'SHA-256 of its text without regard to line ends and trailing blanks.';
COMMENT ON COLUMN public.bisonsync_migrations.applied_at IS 'When it was applied.';
COMMENT ON COLUMN public.bisonsync_migrations.duration_ms IS 'Milliseconds it took.';
COMMENT ON COLUMN public.bisonsync_migrations.bisonsync_version IS 'Version of bisonsync that applied it.';

CREATE TABLE IF NOT EXISTS public.bisonsync_objects (
    name text PRIMARY KEY,
    identity text NOT NULL,
    checksum text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    bisonsync_version text NOT NULL
);

ALTER TABLE public.bisonsync_objects ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.bisonsync_objects IS
    'The views and functions of bisonsync as they stand in this database; migrate makes those anew whose text has changed.';
COMMENT ON INDEX public.bisonsync_objects_pkey IS 'Key; migrate compares by it.';
COMMENT ON COLUMN public.bisonsync_objects.name IS 'Schema and name.';
COMMENT ON COLUMN public.bisonsync_objects.identity IS 'Schema and name, and of a function the types of its arguments.';
COMMENT ON COLUMN public.bisonsync_objects.checksum IS 'SHA-256 of its text without regard to line ends and trailing blanks.';
COMMENT ON COLUMN public.bisonsync_objects.changed_at IS 'When it was last made.';
COMMENT ON COLUMN public.bisonsync_objects.bisonsync_version IS 'Version of bisonsync that made it.';
