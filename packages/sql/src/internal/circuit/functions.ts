/**
 * The verbs of the circuit breaker's store that write, one function each: one round trip, and atomic.
 *
 * - Each statement of a function sees what was committed before it. A single statement would see the rows from before it waited for
 *   a lock.
 * - The clock is read after the lock. `now()` would be the start of the transaction, which is in the past after a wait.
 * - A lock on a row is logged, and a commit would wait for the disk. So commits do not wait: a crash of the server may lose the changes of
 *   its last second.
 * - Circuits are locked before their evidence, so no two calls wait for each other.
 * - An outcome that is not a probe's locks no circuit: the evidence carries its generation.
 */
export const circuitFunctions: ReadonlyArray<string> = [
  `
CREATE FUNCTION sluice_micros() RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$`,

  // What every verb returns. The client decodes it, and also the rows that it reads itself.
  `
CREATE TYPE sluice_circuit_answer AS (
  ok boolean, now float8,
  generation float8, since float8, ends float8, moved_by text, target text, state text, counts float8, leased float8,
  leases text, expires float8,
  evidence_generation float8, ring text, wheel text
)`,

  `
CREATE FUNCTION sluice_circuit_answer(ok boolean, n bigint, c sluice_circuits, e sluice_circuit_evidence)
RETURNS sluice_circuit_answer LANGUAGE sql IMMUTABLE AS $$
  SELECT ok, n::float8, c.generation::float8, c.since::float8, c.ends::float8, c.moved_by, c.target, c.state,
    c.counts::float8, c.leased::float8, c.leases, c.expires::float8, e.generation::float8, e.ring, array_to_string(e.wheel, ',')
$$`,

  // Shifts the times of a locked circuit if the clock was set back. Otherwise an opening or a lease of a second would last an hour
  // longer after the clock was set back by an hour. Drops leases that have ended, so that none is alive again then.
  `
CREATE FUNCTION sluice_circuit_adjust(c sluice_circuits, n bigint) RETURNS sluice_circuits LANGUAGE plpgsql AS $$
DECLARE
  ahead bigint := greatest(c.since, c.leased) - n;
  live jsonb;
BEGIN
  IF c.key IS NULL OR (ahead <= 0 AND c.leases = '{}') THEN RETURN c; END IF;
  ahead := greatest(ahead, 0);
  SELECT coalesce(jsonb_object_agg(key, value::bigint - ahead), '{}') INTO live
  FROM jsonb_each_text(c.leases::jsonb) WHERE value::bigint - ahead > n;
  IF ahead = 0 AND live = c.leases::jsonb THEN RETURN c; END IF;
  c.since := greatest(0, c.since - ahead);
  c.ends := CASE WHEN c.ends = 0 THEN 0 ELSE c.ends - ahead END;
  c.leased := greatest(0, c.leased - ahead);
  c.leases := live;
  UPDATE sluice_circuits SET since = c.since, ends = c.ends, leased = c.leased, leases = c.leases WHERE key = c.key;
  RETURN c;
END $$`,

  // The same for a circuit that is not locked.
  `
CREATE FUNCTION sluice_circuit_adjust(k text, l text) RETURNS sluice_circuit_answer LANGUAGE plpgsql AS $$
DECLARE
  c sluice_circuits;
  e sluice_circuit_evidence;
  n bigint;
BEGIN
  SELECT * INTO c FROM sluice_circuits WHERE key = k FOR NO KEY UPDATE;
  n := sluice_micros() / 1000;
  c := sluice_circuit_adjust(c, n);
  SELECT * INTO e FROM sluice_circuit_evidence WHERE key = k AND layout = l AND generation = c.generation;
  RETURN sluice_circuit_answer(true, n, c, e);
END $$`,

  // Deletes a few rows that have expired. Skips those that others use.
  `
CREATE FUNCTION sluice_circuit_clean(n bigint) RETURNS void LANGUAGE sql AS $$
  DELETE FROM sluice_circuits WHERE key IN (
    SELECT key FROM sluice_circuits WHERE expires < n LIMIT 20 FOR UPDATE SKIP LOCKED
  );
  DELETE FROM sluice_circuit_evidence WHERE (key, layout) IN (
    SELECT key, layout FROM sluice_circuit_evidence WHERE expires < n LIMIT 20 FOR UPDATE SKIP LOCKED
  )
$$`,

  // Adds calls to a bucket, and drops the buckets that have left the window and those that are in the future.
  `
CREATE FUNCTION sluice_circuit_wheel(wheel bigint[], at bigint, calls bigint, failures bigint, slow bigint, span bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  size int := coalesce(array_length(wheel, 1), 0);
BEGIN
  IF span = 0 THEN RETURN '{}'; END IF;
  WHILE size > 0 AND wheel[size - 3] > at LOOP
    size := size - 4;
    wheel := wheel[1:size];
  END LOOP;
  IF size > 0 AND wheel[size - 3] = at THEN
    wheel[size - 2] := wheel[size - 2] + calls;
    wheel[size - 1] := wheel[size - 1] + failures;
    wheel[size] := wheel[size] + slow;
  ELSE
    wheel := wheel || ARRAY[at, calls, failures, slow];
  END IF;
  WHILE wheel[1] <= at - span LOOP wheel := wheel[5:]; END LOOP;
  RETURN wheel;
END $$`,

  `
CREATE FUNCTION sluice_circuit_lease(
  k text, l text, want bigint, id text, most float8, ttl bigint, span bigint, idle bigint
) RETURNS sluice_circuit_answer LANGUAGE plpgsql AS $$
DECLARE
  c sluice_circuits;
  e sluice_circuit_evidence;
  n bigint;
  live jsonb;
  granted boolean;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  SELECT * INTO c FROM sluice_circuits WHERE key = k FOR NO KEY UPDATE;
  n := sluice_micros() / 1000;
  c := sluice_circuit_adjust(c, n);
  SELECT * INTO e FROM sluice_circuit_evidence WHERE key = k AND layout = l AND generation = c.generation;
  granted := c.generation = want AND c.state = 'Open' AND n >= c.ends;
  IF granted THEN
    live := c.leases;
    -- A probe that has reported keeps its slot, so that no more than the limit of outcomes decide a round.
    granted := live ? id
      OR (SELECT count(*) FROM jsonb_object_keys(live)) + coalesce(length(e.ring), 0) < most;
  END IF;
  IF granted THEN
    c.leases := live || jsonb_build_object(id, n + ttl);
    UPDATE sluice_circuits
    SET leases = c.leases, leased = n, expires = greatest(expires, n + greatest(ttl, span) + idle) WHERE key = k;
  END IF;
  RETURN sluice_circuit_answer(coalesce(granted, false), n, c, e);
END $$`,

  `
CREATE FUNCTION sluice_circuit_record(
  k text, l text, want bigint, samples text, lease text, calls bigint, failures bigint, slow bigint,
  size bigint, width bigint, span bigint, idle bigint, untouched text
) RETURNS sluice_circuit_answer LANGUAGE plpgsql AS $$
DECLARE
  c sluice_circuits;
  e sluice_circuit_evidence;
  us bigint;
  n bigint;
  at bigint;
  taken boolean;
  made boolean := false;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  IF lease IS NULL THEN
    LOOP
      SELECT * INTO c FROM sluice_circuits WHERE key = k;
      EXIT WHEN FOUND;
      us := sluice_micros();
      INSERT INTO sluice_circuits
      VALUES (k, greatest(want + 1, us), 0, 0, '', untouched, 'Closed', 1, 0, '{}', us / 1000 + span + 2 * idle)
      ON CONFLICT DO NOTHING RETURNING * INTO c;
      made := FOUND;
      EXIT WHEN made;
    END LOOP;
    n := sluice_micros() / 1000;
    IF greatest(c.since, c.leased) > n OR c.leases <> '{}' THEN
      SELECT * INTO c FROM sluice_circuits WHERE key = k FOR NO KEY UPDATE;
      c := sluice_circuit_adjust(c, n);
    END IF;
    -- A call that found no circuit counts in the one that was made since, unless that has moved.
    taken := made OR (c.counts = 1 AND (c.generation = want OR (want = 0 AND c.moved_by = '')));
  ELSE
    SELECT * INTO c FROM sluice_circuits WHERE key = k FOR NO KEY UPDATE;
    n := sluice_micros() / 1000;
    c := sluice_circuit_adjust(c, n);
    taken := coalesce(c.leases::jsonb ? lease AND c.generation = want, false);
    IF c.leases::jsonb ? lease THEN
      c.leases := c.leases::jsonb - lease;
      UPDATE sluice_circuits SET leases = c.leases WHERE key = k;
    END IF;
  END IF;

  IF taken AND c.expires < n + span + idle THEN
    -- Half of idle more than needed, so that the row of a busy circuit is rarely written.
    UPDATE sluice_circuits SET expires = n + span + idle + idle / 2 WHERE key = k AND expires < n + span + idle;
  END IF;
  IF taken AND samples <> '' THEN
    at := CASE WHEN width = 0 THEN 0 ELSE n / width * width END;
    INSERT INTO sluice_circuit_evidence AS known VALUES (
      k, l, c.generation, right(samples, size::int), sluice_circuit_wheel('{}', at, calls, failures, slow, span),
      -- In whole hours. Otherwise each outcome would write the index.
      (n + span + idle) / 3600000 * 3600000 + 7200000
    )
    ON CONFLICT (key, layout) DO UPDATE SET
      generation = excluded.generation,
      ring = CASE known.generation WHEN excluded.generation THEN right(known.ring || samples, size::int) ELSE excluded.ring END,
      wheel = CASE known.generation WHEN excluded.generation
        THEN sluice_circuit_wheel(known.wheel, at, calls, failures, slow, span) ELSE excluded.wheel END,
      expires = excluded.expires
    WHERE known.generation <= excluded.generation
    RETURNING * INTO e;
    IF NOT FOUND THEN
      -- The circuit has moved since it was read.
      taken := false;
      SELECT * INTO c FROM sluice_circuits WHERE key = k;
    END IF;
  END IF;
  IF e.key IS NULL THEN
    SELECT * INTO e FROM sluice_circuit_evidence WHERE key = k AND layout = l AND generation = c.generation;
  END IF;
  IF made THEN PERFORM sluice_circuit_clean(n); END IF;
  RETURN sluice_circuit_answer(taken, n, c, e);
END $$`,

  `
CREATE FUNCTION sluice_circuit_transition(
  k text, l text, want bigint, caller text, goal text, kind text, millis bigint, counted bigint, remember bigint,
  span bigint, idle bigint
) RETURNS sluice_circuit_answer LANGUAGE plpgsql AS $$
DECLARE
  c sluice_circuits;
  e sluice_circuit_evidence;
  us bigint;
  n bigint;
  ok boolean;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  LOOP
    SELECT * INTO c FROM sluice_circuits WHERE key = k FOR NO KEY UPDATE;
    EXIT WHEN FOUND OR want <> 0;
    INSERT INTO sluice_circuits VALUES (k, 0, 0, 0, '', goal, kind, counted, 0, '{}', 0) ON CONFLICT DO NOTHING;
  END LOOP;
  us := sluice_micros();
  n := us / 1000;
  c := sluice_circuit_adjust(c, n);
  ok := coalesce(c.generation, 0) = want;
  IF ok THEN
    c.generation := greatest(want + 1, us);
    c.since := n;
    c.ends := CASE WHEN millis > 0 OR kind = 'Open' THEN n + millis ELSE 0 END;
    c.moved_by := caller;
    c.target := goal;
    -- The leases stay: a probe that still runs keeps its slot, or more than the limit would run.
    UPDATE sluice_circuits SET
      generation = c.generation, since = c.since, ends = c.ends, moved_by = c.moved_by, target = c.target, state = kind,
      counts = counted,
      -- A force without an end is kept until an operator lifts it.
      expires = CASE WHEN kind = 'Forced' AND millis = 0 THEN 9000000000000000
        ELSE greatest(n + greatest(remember, span) + 2 * idle, CASE WHEN expires < 9000000000000000 THEN expires END) END
    WHERE key = k;
    IF want = 0 THEN PERFORM sluice_circuit_clean(n); END IF;
  ELSE
    -- The winner repeats its request.
    ok := coalesce(c.moved_by = caller, false);
    SELECT * INTO e FROM sluice_circuit_evidence WHERE key = k AND layout = l AND generation = c.generation;
  END IF;
  RETURN sluice_circuit_answer(ok, n, c, e);
END $$`
]
