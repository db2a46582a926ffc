-- What is wrong since when, and the messages that tell of it until somebody has received them.

CREATE TABLE public.alert_episodes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    check_name text NOT NULL,
    scope text NOT NULL DEFAULT '',
    state text NOT NULL,
    first_bad_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    bad_count integer NOT NULL,
    good_count integer NOT NULL DEFAULT 0,
    opened_at timestamptz,
    channel text,
    told_state text,
    paged_at timestamptz,
    last_message_at timestamptz,
    reminders integer NOT NULL DEFAULT 0,
    closed_at timestamptz,
    value double precision,
    unit text NOT NULL DEFAULT '',
    detail text NOT NULL DEFAULT '',
    hint text NOT NULL DEFAULT '',
    workspaces text[] NOT NULL DEFAULT '{}',
    caused_by text
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX alert_episodes_open_key ON public.alert_episodes (check_name, scope) WHERE closed_at IS NULL;

ALTER TABLE public.alert_episodes ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.alert_episodes IS
    'From the first bad observation of a check to the last: what is wrong since when, and what was said of it. One is open at a time per check, and per check and client that has a channel of its own.';
COMMENT ON INDEX public.alert_episodes_pkey IS 'Key.';
COMMENT ON SEQUENCE public.alert_episodes_id_seq IS 'Makes alert_episodes.id.';
COMMENT ON INDEX public.alert_episodes_open_key IS 'One open episode per check and scope, however many look at once; each look finds the open ones by it.';
COMMENT ON COLUMN public.alert_episodes.id IS 'Number of the episode.';
COMMENT ON COLUMN public.alert_episodes.check_name IS 'The check that is not well.';
COMMENT ON COLUMN public.alert_episodes.scope IS 'Empty: the whole check; else INSTANCE/WORKSPACE-ID of the client whose own channel is told.';
COMMENT ON COLUMN public.alert_episodes.state IS 'WARNING, UNKNOWN or CRITICAL, as last seen bad.';
COMMENT ON COLUMN public.alert_episodes.first_bad_at IS 'When it was first seen bad.';
COMMENT ON COLUMN public.alert_episodes.last_seen_at IS 'When the check was last looked at.';
COMMENT ON COLUMN public.alert_episodes.bad_count IS 'Bad observations in a row, up to the last.';
COMMENT ON COLUMN public.alert_episodes.good_count IS 'Good observations in a row, up to the last.';
COMMENT ON COLUMN public.alert_episodes.opened_at IS 'When it had been bad often enough in a row to be told of; null: not yet.';
COMMENT ON COLUMN public.alert_episodes.channel IS 'Where it was told of: a name in [alerts.channels], empty for [alerts] slack_webhook_url; null: nowhere yet.';
COMMENT ON COLUMN public.alert_episodes.told_state IS 'The worst state that a message has told; null: none has been made.';
COMMENT ON COLUMN public.alert_episodes.paged_at IS 'When it was told that the threshold "page" is passed, which happens once.';
COMMENT ON COLUMN public.alert_episodes.last_message_at IS 'When the last message was made; the next reminder counts from it.';
COMMENT ON COLUMN public.alert_episodes.reminders IS 'Reminders made so far.';
COMMENT ON COLUMN public.alert_episodes.closed_at IS 'When it was over; null: it is not.';
COMMENT ON COLUMN public.alert_episodes.value IS 'The figure that decided when it was last seen bad.';
COMMENT ON COLUMN public.alert_episodes.unit IS 'Unit of value: s, %, B or none.';
COMMENT ON COLUMN public.alert_episodes.detail IS 'What was the matter when it was last seen bad.';
COMMENT ON COLUMN public.alert_episodes.hint IS 'The next command to type.';
COMMENT ON COLUMN public.alert_episodes.workspaces IS 'The workspaces it was about when it was last seen bad, as INSTANCE/ID.';
COMMENT ON COLUMN public.alert_episodes.caused_by IS 'The check whose failure explains this one at present: no reminder is sent while it lasts.';


CREATE TABLE public.alert_messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    episode_id bigint NOT NULL REFERENCES public.alert_episodes (id) ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('opening', 'worse', 'page', 'reminder', 'recovery')),
    channel text NOT NULL,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    attempted_at timestamptz,
    claimed_until timestamptz,
    next_attempt_at timestamptz NOT NULL,
    may_have_arrived boolean NOT NULL DEFAULT false,
    holds_channel boolean NOT NULL DEFAULT true,
    delivered_at timestamptz,
    dropped_at timestamptz,
    last_error text
);

CREATE INDEX alert_messages_waiting_idx ON public.alert_messages (channel, id)
    WHERE delivered_at IS NULL AND dropped_at IS NULL;
CREATE INDEX alert_messages_pace_idx ON public.alert_messages (channel, attempted_at);
CREATE INDEX alert_messages_episode_idx ON public.alert_messages (episode_id);

ALTER TABLE public.alert_messages ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE public.alert_messages IS
    'What is told of episodes: written together with them, and kept until it is delivered. An attempt is recorded before it is made, so that one whose end nobody saw is known to be repeated.';
COMMENT ON INDEX public.alert_messages_pkey IS 'Key.';
COMMENT ON SEQUENCE public.alert_messages_id_seq IS 'Makes alert_messages.id.';
COMMENT ON INDEX public.alert_messages_waiting_idx IS 'Each delivery takes the oldest message that waits for a channel.';
COMMENT ON INDEX public.alert_messages_pace_idx IS 'Each delivery looks when the channel was last written to.';
COMMENT ON INDEX public.alert_messages_episode_idx IS 'The messages of an episode: counted by alerts list, deleted with it.';
COMMENT ON COLUMN public.alert_messages.id IS 'Number of the message; a channel gets them in this order.';
COMMENT ON COLUMN public.alert_messages.episode_id IS 'What it tells of.';
COMMENT ON COLUMN public.alert_messages.kind IS 'opening, worse (it has become CRITICAL), page (the threshold "page" is passed), reminder, recovery.';
COMMENT ON COLUMN public.alert_messages.channel IS 'A name in [alerts.channels], empty for [alerts] slack_webhook_url; never an address.';
COMMENT ON COLUMN public.alert_messages.body IS 'What is posted.';
COMMENT ON COLUMN public.alert_messages.created_at IS 'When it was made.';
COMMENT ON COLUMN public.alert_messages.attempts IS 'How often it was sent, or was about to be.';
COMMENT ON COLUMN public.alert_messages.attempted_at IS 'When it last was.';
COMMENT ON COLUMN public.alert_messages.claimed_until IS 'A run is sending it and has until then to say what became of it; null: none is.';
COMMENT ON COLUMN public.alert_messages.next_attempt_at IS 'Not to be sent before.';
COMMENT ON COLUMN public.alert_messages.may_have_arrived IS 'An attempt ended without an answer that could be believed: the next is marked as repeated.';
COMMENT ON COLUMN public.alert_messages.holds_channel IS 'Whether later messages wait for it: not for one that was refused for itself.';
COMMENT ON COLUMN public.alert_messages.delivered_at IS 'When it was received.';
COMMENT ON COLUMN public.alert_messages.dropped_at IS 'When a newer message made it superfluous: only reminders.';
COMMENT ON COLUMN public.alert_messages.last_error IS 'Why the last attempt failed.';
