import { createHash, randomUUID } from 'node:crypto';
import { type Role, topics } from '@realtime-service/contracts';
import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { LivekitError, type RoomService } from '@realtime-service/livekit';
import { permissionsOf, toParticipantPermission } from '@realtime-service/room-model';
import type { RoomStore } from '@realtime-service/room-store';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type FakeLivekit, type FakeParticipant, startFakeLivekit } from '../test/fake-livekit.ts';
import { startProjection, type TestProjection } from '../test/projection.ts';
import { type Client, connect, type RealWorker, startRealWorker } from '../test/real-worker.ts';
import { type Clock, systemClock } from './clock.ts';
import { toLivekitRecord } from './livekit-record.ts';
import { beforeAnySweep, type SweepDependencies, startSweep, sweepOnce } from './sweep.ts';

/** Looks follow each other ten times as fast: what they see is set by the test, not by time. */
const fastClock: Clock = { ...systemClock, delay: (ms, signal) => systemClock.delay(ms / 10, signal) };

const unavailable = (): LivekitError => new LivekitError('no answer', { kind: 'unavailable' });

const sidOf = (at: number): string => `PA_${createHash('md5').update(`${at}`).digest('hex')}`;

/** Nobody is asked about because of it. */
const nobodysTurn = -1;

describeWith(['postgres'], 'the sweep', () => {
  let parts: TestProjection;
  let livekit: FakeLivekit;
  let before = beforeAnySweep;
  const never = new AbortController().signal;

  beforeEach(async () => {
    before = beforeAnySweep;
    parts = await startProjection();
    livekit = await startFakeLivekit(2_000);
    parts.consume();
  });
  afterEach(async () => {
    await livekit.stop();
    await parts.stop();
  });

  const dependencies = () => ({
    store: parts.store,
    log: parts.log,
    livekit: livekit.service,
    clock: fastClock,
    metrics: parts.metrics,
    logger: parts.logger,
  });
  const sweep = async (changes: Partial<SweepDependencies> = {}): Promise<number> => {
    const swept = await sweepOnce({
      ...dependencies(),
      signal: never,
      turn: nobodysTurn,
      before,
      ...changes,
    });
    before = swept;
    await parts.caughtUp();
    return swept.differences;
  };
  const put = (room: string, identity: string, sid = `PA_${identity}`, role: Role = 'speaker'): void =>
    livekit.put(room, {
      sid,
      identity,
      attributes: { 'rt.user': identity, 'app.other': 'x' },
      permission: toParticipantPermission(permissionsOf(role, null, [])),
    });
  const live = async (): Promise<string[]> =>
    (await parts.pool.query(`select room_id || ' ' || participant_sid as session from sessions where is_live`)).rows
      .map(({ session }) => session)
      .sort();
  const inLog = async (): Promise<number> =>
    (await parts.pool.query('select from log_records where topic = $1', [topics.livekitWebhooks])).rowCount ?? 0;
  const told = (event: string, room: string, identity: string, life: object = { sid: `RM_${room}` }) =>
    toLivekitRecord(
      {
        id: randomUUID(),
        source: 'livekit',
        type: `livekit.${event}`,
        roomName: room,
        timeMs: undefined,
        traceparent: undefined,
      },
      {
        event,
        room: { ...life, name: room },
        participant: { sid: `PA_${identity}`, identity, joinedAtMs: '1' },
      },
    );
  const joined = (room: string, identity: string) => told('participant_joined', room, identity);
  const left = (room: string, identity: string) => told('participant_left', room, identity);

  test('finds who is there and who is not, and then nothing', async () => {
    put('one', 'ann');
    put('one', 'bob');
    put('two', 'cid');
    expect(await sweep()).toBe(2);
    expect(await live()).toEqual(['one PA_ann', 'one PA_bob', 'two PA_cid']);
    livekit.rooms.get('one')?.delete('ann');
    livekit.rooms.delete('two');
    expect(await sweep()).toBe(2);
    expect(await live()).toEqual(['one PA_bob']);
    expect(await sweep()).toBe(0);
    expect(await parts.metrics.sweepDifferences.get()).toMatchObject({ values: [{ value: 4 }] });
  });

  test('takes nobody for there who is listed as disconnected', async () => {
    put('one', 'ann');
    livekit.fail('ListParticipants', () => {
      const participants = [...(livekit.rooms.get('one')?.values() ?? [])];
      return { status: 200, body: { participants: participants.map((each) => ({ ...each, state: 'DISCONNECTED' })) } };
    });
    expect(await sweep()).toBe(1);
    expect(await live()).toEqual([]);
    expect(await sweep()).toBe(0);
  });

  test('fails where the log does not take what it found, and counts nothing as repaired', async () => {
    put('one', 'ann');
    const append = () => Promise.reject(new Error('away'));
    await expect(sweep({ log: { ...parts.log, append } })).rejects.toThrow('away');
    expect(await parts.metrics.sweepDifferences.get()).toMatchObject({ values: [{ value: 0 }] });
  });

  test('goes on where another key of LiveKit has given names that nothing of ours can have', async () => {
    put('one', 'ann');
    put('one', 'n\0l', 'PA_odd');
    put('', 'bob');
    expect(await sweep()).toBe(1);
    expect(await live()).toEqual(['one PA_ann']);
    expect(await sweep()).toBe(0);
  });

  test('asks about everybody who is inside once in a round, a few at a time', async () => {
    for (let at = 0; at < 240; at += 1) put('one', `p-${at}`, sidOf(at));
    put('one', 'recorder', 'PA_recorder');
    const recorder = livekit.rooms.get('one')?.get('recorder');
    if (recorder !== undefined) livekit.put('one', { ...recorder, kind: 'EGRESS' });
    await sweep();
    const asked: string[] = [];
    let most = 0;
    for (let turn = 1_000; turn < 1_120; turn += 1) {
      await parts.pool.query('truncate marks');
      expect(await sweep({ turn })).toBe(0);
      const { rows } = await parts.pool.query('select identity, cause from marks');
      expect(rows.every(({ cause }) => cause === 'round')).toBe(true);
      most = Math.max(most, rows.length);
      asked.push(...rows.map(({ identity }) => identity));
    }
    expect(asked.sort()).toEqual(Array.from({ length: 240 }, (_, at) => `p-${at}`).sort());
    expect(most).toBeLessThan(20);
  }, 30_000);

  test('finds one who came in the place of another, whom no count tells apart', async () => {
    put('one', 'ann');
    await sweep();
    livekit.rooms.get('one')?.delete('ann');
    put('one', 'bob');
    expect(await sweep()).toBe(1);
    expect(await live()).toEqual(['one PA_bob']);
  });

  test('finds who is hidden no more, or is now: no webhook tells of new rights', async () => {
    const hidden = async () => (await parts.pool.query('select is_hidden from sessions')).rows[0]?.is_hidden;
    const announced = async (): Promise<string[]> => {
      const { rows } = await parts.pool.query(
        `select type, data ->> 'reason' as reason from outbox where type like 'participant.%' order by outbox_id`,
      );
      return rows.map(({ type, reason }) => `${type} ${reason ?? ''}`.trim());
    };
    put('one', 'ann', 'PA_ann', 'observer');
    await sweep();
    expect([await hidden(), await announced()]).toEqual([true, []]);
    put('one', 'ann');
    expect(await sweep()).toBe(1);
    expect([await hidden(), await announced()]).toEqual([false, ['participant.joined']]);
    expect(await sweep()).toBe(0);
    put('one', 'ann', 'PA_ann', 'observer');
    expect(await sweep()).toBe(1);
    expect([await hidden(), await announced()]).toEqual([true, ['participant.joined', 'participant.left hidden']]);
    livekit.rooms.get('one')?.clear();
    expect(await sweep()).toBe(1);
    expect(await announced()).toHaveLength(2);
    expect(await live()).toEqual([]);
  });

  test('asks about a disguised track whose webhook was lost, of a person, and takes it for no difference', async () => {
    const publish = (kind: string, ...tracks: NonNullable<FakeParticipant['tracks']>): void => {
      put('one', 'ann');
      const ann = livekit.rooms.get('one')?.get('ann');
      if (ann !== undefined) livekit.put('one', { ...ann, kind, tracks });
    };
    const audio = { sid: 'TR_1', source: 'MICROPHONE', mime_type: 'audio/opus' };
    publish('STANDARD', audio);
    await sweep();
    await parts.pool.query('delete from marks');
    expect(await sweep()).toBe(0);
    for (const disguised of [
      { ...audio, source: 'CAMERA' },
      { ...audio, source: 'CAMERA', type: 'VIDEO' },
    ]) {
      publish('AGENT', audio, disguised);
      expect(await sweep()).toBe(0);
      expect((await parts.pool.query('select from marks')).rowCount).toBe(0);
      publish('STANDARD', audio, disguised);
      expect(await sweep()).toBe(0);
      const { rows } = await parts.pool.query('delete from marks returning room_id, identity, cause');
      expect(rows).toEqual([{ room_id: 'one', identity: 'ann', cause: 'disguised_track' }]);
    }
  });

  test('raises a question about everybody whom it lists, and about a room that it did not know to be live', async () => {
    put('one', 'ann');
    await sweep();
    const { rows } = await parts.pool.query('select room_id, identity, cause from marks order by identity');
    expect(rows).toEqual([
      { room_id: 'one', identity: '', cause: 'observed' },
      { room_id: 'one', identity: 'ann', cause: 'observed' },
    ]);
  });

  test('takes a webhook that is on its way for no difference', async () => {
    put('one', 'ann');
    // Between the two looks.
    const clock: Clock = { ...systemClock, delay: () => parts.tell(joined('one', 'ann')) };
    expect(await sweep({ clock })).toBe(0);
    expect(await inLog()).toBe(1);
  });

  test('by a clock that is a day ahead blinds none after it', async () => {
    put('one', 'ann');
    put('one', 'bob');
    expect(await sweep({ clock: { ...fastClock, now: () => Date.now() + 86_400_000 } })).toBe(1);
    livekit.rooms.get('one')?.delete('ann');
    expect(await sweep()).toBe(1);
    expect(await live()).toEqual(['one PA_bob']);
  });

  test('is not blinded by what was received by a clock that was a day ahead', async () => {
    put('one', 'ann');
    await sweep();
    await parts.pool.query(`update sessions set last_fact_at = last_fact_at + interval '1 day'`);
    await parts.pool.query(`update room_lives set last_fact_at = last_fact_at + interval '1 day'`);
    livekit.rooms.delete('one');
    expect(await sweep()).toBe(1);
    expect(await live()).toEqual([]);
    expect(await sweep()).toBe(0);
  });

  test('takes a leave that was received since the look for no difference', async () => {
    put('one', 'ann');
    await sweep();
    const release = livekit.hold('ListParticipants');
    const before = await inLog();
    const sweeping = sweep();
    await until('the list is under way', () => livekit.callsOf('ListParticipants').length > 2);
    livekit.rooms.get('one')?.clear();
    await parts.append(left('one', 'ann'));
    await parts.caughtUp();
    release();
    expect(await sweeping).toBe(0);
    expect(await inLog()).toBe(before + 1);
    expect(await live()).toEqual([]);
  });

  test('takes a join that was received while the second list was under way for no difference', async () => {
    put('one', 'ann');
    await sweep();
    put('one', 'bob');
    const looks = livekit.callsOf('ListParticipants').length;
    let release = (): void => undefined;
    const delay: Clock['delay'] = async () => {
      release = livekit.hold('ListParticipants');
    };
    const sweeping = sweep({ clock: { ...systemClock, delay } });
    await until('the second is under way', () => livekit.callsOf('ListParticipants').length === looks + 2);
    await parts.append(joined('one', 'bob'), joined('one', 'cid'));
    await parts.caughtUp();
    release();
    expect(await sweeping).toBe(0);
  });

  describe('in a room of which something is heard after each list', () => {
    let come: number;
    beforeEach(() => {
      come = 0;
    });
    /** After each list somebody else comes, and is told of at once. */
    const busy = (): Partial<SweepDependencies> => {
      const someoneComes = async <T>(listed: T): Promise<T> => {
        come += 1;
        put('one', `late-${come}`);
        await parts.tell(joined('one', `late-${come}`));
        return listed;
      };
      const listSids: RoomService['listSids'] = async (room) => someoneComes(await livekit.service.listSids(room));
      const listParticipants: RoomService['listParticipants'] = async (room) =>
        someoneComes(await livekit.service.listParticipants(room));
      return { livekit: { ...livekit.service, listSids, listParticipants } };
    };

    test('finds whose leave was lost, and ends nobody who came after the list', async () => {
      put('one', 'ann');
      put('one', 'bob');
      await sweep();
      livekit.rooms.get('one')?.delete('ann');
      expect(await sweep(busy())).toBe(1);
      expect(await live()).toEqual(['one PA_bob', 'one PA_late-1', 'one PA_late-2']);
      expect(await sweep(busy())).toBe(0);
    });

    test('finds who only signals', async () => {
      put('one', 'ann');
      await sweep();
      put('one', 'mute');
      expect(await sweep(busy())).toBe(1);
      expect(await live()).toEqual(['one PA_ann', 'one PA_late-1', 'one PA_late-2', 'one PA_mute']);
    });
  });

  test('believes the lists of a LiveKit that was killed and came back with its clock set back', async () => {
    await parts.tell(told('participant_joined', 'one', 'ann', { sid: 'RM_before', creationTimeMs: `${Date.now()}` }));
    put('one', 'bob');
    await parts.tell(joined('one', 'bob'));
    expect(await live()).toEqual(['one PA_ann']);
    expect(await sweep()).toBe(1);
    expect(await live()).toEqual(['one PA_bob']);
    expect(await sweep()).toBe(0);
  });

  test('does not judge by a list that has no such room a room in which somebody came since', async () => {
    await parts.tell(joined('one', 'ann'));
    const before = await inLog();
    const comes = async (): Promise<void> => parts.tell(joined('one', `since-${await inLog()}`));
    const listRooms: RoomService['listRooms'] = async (names) => {
      const listed = await livekit.service.listRooms(names);
      await comes();
      return listed;
    };
    expect(await sweep({ livekit: { ...livekit.service, listRooms } })).toBe(0);
    expect(await live()).toHaveLength(1 + (await inLog()) - before);
  });

  test('takes nobody for gone of whom something was told since the list', async () => {
    put('one', 'ann');
    await sweep();
    livekit.rooms.get('one')?.clear();
    const listParticipants: RoomService['listParticipants'] = async (room) => {
      const listed = await livekit.service.listParticipants(room);
      await parts.tell(joined('one', 'ann'));
      return listed;
    };
    expect(await sweep({ livekit: { ...livekit.service, listParticipants } })).toBe(0);
    expect(await live()).toEqual(['one PA_ann']);
    expect(await sweep()).toBe(1);
    expect(await live()).toEqual([]);
  });

  test('says nothing of a room whose next life began between its list and that of its people', async () => {
    put('one', 'ann');
    put('two', 'bob');
    let isReplaced = false;
    const listParticipants: RoomService['listParticipants'] = (name) => {
      isReplaced ||= name === 'one';
      return livekit.service.listParticipants(name);
    };
    const listRooms: RoomService['listRooms'] = async (names) =>
      (await livekit.service.listRooms(names)).map((room) =>
        isReplaced && room.name === 'one' ? { ...room, sid: 'RM_next' } : room,
      );
    expect(await sweep({ livekit: { ...livekit.service, listRooms, listParticipants } })).toBe(1);
    expect(await live()).toEqual(['two PA_bob']);
  });

  test('takes for no difference that at each of two looks the webhook of another is on its way', async () => {
    put('one', 'ann');
    await sweep();
    const before = await inLog();
    put('one', 'bob');
    const clock: Clock = {
      ...systemClock,
      delay: async () => {
        await parts.tell(joined('one', 'bob'));
        put('one', 'cid');
      },
    };
    expect(await sweep({ clock })).toBe(0);
    expect(await inLog()).toBe(before + 1);
  });

  test('compares twenty rooms at a time with what is believed right after they were listed', async () => {
    for (let at = 0; at < 25; at += 1) put(`room-${at}`, `p-${at}`);
    await sweep();
    const read: (readonly string[])[] = [];
    const store: RoomStore = {
      ...parts.store,
      readLiveRooms: (roomIds) => {
        read.push(roomIds);
        return parts.store.readLiveRooms(roomIds);
      },
    };
    const listSids: RoomService['listSids'] = async (room) => {
      // The first of the next ones, by name.
      if (room.name === 'room-5') {
        put('room-0', 'late');
        await parts.tell(joined('room-0', 'late'));
        livekit.rooms.get('room-1')?.clear();
        await parts.tell(left('room-1', 'p-1'));
      }
      return livekit.service.listSids(room);
    };
    expect(await sweep({ store, livekit: { ...livekit.service, listSids } })).toBe(0);
    expect(read.map(({ length }) => length)).toEqual([20, 5]);
  });

  test('says nothing while LiveKit does not answer', async () => {
    put('one', 'ann');
    await sweep();
    livekit.fail('ListRooms', () => ({ status: 503 }));
    await expect(sweep()).rejects.toMatchObject({ kind: 'unavailable' });
    expect(await live()).toEqual(['one PA_ann']);
  });

  test('leaves a room that cannot be listed to the next time, and repairs the others', async () => {
    for (const room of ['one', 'two', 'three']) put(room, 'ann');
    livekit.fail('ListParticipants', [{ status: 503 }]);
    expect(await sweep()).toBe(2);
    expect(await live()).toEqual(['three PA_ann', 'two PA_ann']);
    expect(await sweep()).toBe(1);
    expect(await live()).toEqual(['one PA_ann', 'three PA_ann', 'two PA_ann']);
  });

  test('leaves twenty rooms that cannot be listed to the next time, and repairs the others', async () => {
    for (let at = 0; at < 23; at += 1) put(`room-${at}`, `p-${at}`);
    let asked = 0;
    livekit.fail('ListRooms', () => {
      asked += 1;
      return asked === 2 ? { status: 503 } : undefined;
    });
    expect(await sweep()).toBe(3);
    expect(await live()).toEqual(['room-7 PA_p-7', 'room-8 PA_p-8', 'room-9 PA_p-9']);
  });

  const askedRooms = (from = 0): unknown[] =>
    livekit
      .callsOf('ListParticipants')
      .slice(from)
      .map(({ body }) => body.room);

  test('gives up when five rooms one after the other cannot be listed; the next one goes on behind them', async () => {
    for (let at = 0; at < 10; at += 1) put(`room-${at}`, 'ann');
    livekit.fail('ListParticipants', () => ({ status: 503 }));
    expect(await sweep()).toBe(0);
    expect(askedRooms()).toEqual(['room-0', 'room-1', 'room-2', 'room-3', 'room-4']);
    expect(await sweep()).toBe(0);
    expect(askedRooms(5)).toEqual(['room-5', 'room-6', 'room-7', 'room-8', 'room-9']);
  });

  test('goes on where five rooms cannot be listed, and others between them can', async () => {
    for (let at = 0; at < 10; at += 1) put(`room-${at}`, 'ann');
    let asked = 0;
    livekit.fail('ListParticipants', () => {
      asked += 1;
      return asked <= 10 && asked % 2 === 1 ? { status: 503 } : undefined;
    });
    expect(await sweep()).toBe(5);
    expect(await live()).toEqual([1, 3, 5, 7, 9].map((at) => `room-${at} PA_ann`));
  });

  test('repairs what it found after ten calls that took long, and goes on behind them', async () => {
    for (let at = 10; at < 22; at += 1) {
      put(`room-${at}`, 'ann');
      put(`room-${at}-quick`, 'bob');
    }
    let elapsedMs = 0;
    const listSids: RoomService['listSids'] = (room) => {
      if (!room.name.endsWith('quick')) elapsedMs += 1_000;
      return livekit.service.listSids(room);
    };
    const slow = { livekit: { ...livekit.service, listSids }, clock: { ...fastClock, elapsed: () => elapsedMs } };
    expect(await sweep(slow)).toBe(19);
    expect((await live()).at(-1)).toBe('room-19 PA_ann');
    expect(await sweep(slow)).toBe(5);
  });

  test('gives up too when the tenth call that took long was the one for the next twenty rooms', async () => {
    for (let at = 10; at < 50; at += 1) put(`room-${at}`, 'ann');
    let elapsedMs = 0;
    let asked = 0;
    const { listRooms, listSids } = livekit.service;
    const service: RoomService = {
      ...livekit.service,
      listRooms: (names) => {
        if (names?.includes('room-30')) elapsedMs += 1_000;
        return listRooms(names);
      },
      listSids: (room) => {
        asked += 1;
        if (room.name >= 'room-21') elapsedMs += 1_000;
        return listSids(room);
      },
    };
    await sweep({ livekit: service, clock: { ...fastClock, elapsed: () => elapsedMs } });
    expect(asked).toBe(21);
  });

  test('goes on behind the room at which its second look gave up', async () => {
    for (let at = 0; at < 10; at += 1) put(`room-${at}`, 'ann');
    const listParticipants = (): Promise<never> => Promise.reject(unavailable());
    expect(await sweep({ livekit: { ...livekit.service, listParticipants } })).toBe(0);
    const before = askedRooms().length;
    expect(await sweep()).toBe(10);
    expect(askedRooms(before)[0]).toBe('room-5');
  });

  describe('with rooms of a node that died, which are listed and do not answer', () => {
    const dead = Array.from({ length: 8 }, (_, at) => `dead-${at}`);
    let elapsedMs: number;
    let revived: string[];

    beforeEach(async () => {
      elapsedMs = 0;
      revived = [];
      put('a', 'ann');
      for (const room of dead) put(room, 'ghost', `PA_${room}`);
      put('z', 'bob');
      await sweep();
      expect(await live()).toHaveLength(10);
      livekit.rooms.get('a')?.clear();
      livekit.rooms.get('z')?.clear();
    });

    /** A sweep that begins so long after the rooms fell silent; a call that is not answered takes 2 s. */
    const sweepAfter = (ms: number, changes: Partial<RoomService> = {}): Promise<number> => {
      elapsedMs = ms;
      const answer = async <T>(room: string, call: () => Promise<T>): Promise<T> => {
        if (!dead.includes(room) || revived.includes(room)) return call();
        elapsedMs += 2_000;
        throw unavailable();
      };
      const service: RoomService = {
        ...livekit.service,
        listSids: (room) => answer(room.name, () => livekit.service.listSids(room)),
        listParticipants: (room) => answer(room, () => livekit.service.listParticipants(room)),
        reviveRoom: async (room) => {
          if (dead.includes(room) && !revived.includes(room)) livekit.rooms.get(room)?.clear();
          revived.push(room);
          return livekit.service.reviveRoom(room);
        },
        ...changes,
      };
      return sweep({ livekit: service, clock: { ...fastClock, elapsed: () => elapsedMs } });
    };

    test('repairs the others, and has a node that lives take over each that was silent for 15 s', async () => {
      expect(await sweepAfter(0)).toBe(1);
      expect(await live()).not.toContain('a PA_ann');
      expect(await sweepAfter(15_000)).toBe(6);
      expect(revived).toEqual(dead.slice(0, 5));
      expect(await live()).toEqual(dead.slice(5).map((room) => `${room} PA_${room}`));
      expect(await sweepAfter(40_000)).toBe(3);
      expect(revived).toEqual(dead);
      expect(await live()).toEqual([]);
    });

    test('leaves each to itself that does not answer on a node that lives either', async () => {
      const reviveRoom = async (): Promise<boolean> => true;
      expect(await sweepAfter(0, { reviveRoom })).toBe(1);
      expect(await sweepAfter(15_000, { reviveRoom })).toBe(1);
      expect(await live()).toEqual(dead.map((room) => `${room} PA_${room}`));
    });

    test('makes none anew that has ended meanwhile', async () => {
      await sweepAfter(0);
      const listSids: RoomService['listSids'] = (room) => {
        livekit.rooms.delete(room.name);
        return Promise.reject(unavailable());
      };
      await sweepAfter(60_000, { listSids });
      await sweepAfter(80_000, { listSids });
      expect(revived).toEqual(dead.slice(0, 5));
      expect(livekit.callsOf('CreateRoom')).toEqual([]);
    });

    test('does nothing about rooms that were silent for less', async () => {
      await sweepAfter(0);
      await sweepAfter(4_000);
      expect(revived).toEqual([]);
    });

    test('counts anew once all have answered', async () => {
      await sweepAfter(0);
      await sweepAfter(15_000, { listSids: livekit.service.listSids });
      await sweepAfter(30_000);
      expect(revived).toEqual([]);
    });

    const silent = (...rooms: string[]): Partial<RoomService> => ({
      listSids: (room) => (rooms.includes(room.name) ? Promise.reject(unavailable()) : livekit.service.listSids(room)),
    });

    test('leaves one that fails for the first time to its node, however long another has been silent', async () => {
      await sweepAfter(0, silent('dead-0'));
      await sweepAfter(60_000, silent('dead-0', 'dead-1'));
      expect(revived).toEqual(['dead-0']);
    });

    test('leaves one to its node that has ended, and is there again, since it fell silent', async () => {
      await sweepAfter(0, silent('dead-0'));
      livekit.rooms.delete('dead-0');
      await sweepAfter(15_000, silent());
      put('dead-0', 'ghost');
      await sweepAfter(30_000, silent('dead-0'));
      expect(revived).toEqual([]);
    });

    test('leaves one to its node of which LiveKit refuses to tell', async () => {
      const refused = new LivekitError('our key is not its', { kind: 'unauthorised' });
      const listSids: RoomService['listSids'] = (room) =>
        room.name === 'dead-0' ? Promise.reject(refused) : livekit.service.listSids(room);
      await sweepAfter(0, { listSids });
      await sweepAfter(30_000, { listSids });
      expect(revived).toEqual([]);
    });
  });

  test.each([
    ['LiveKit was away', { failing: 2 }],
    ['another worker swept', { elsewhere: 2 }],
    ['the database was away', { unknown: 2 }],
  ])('forgets how long a room has been silent where meanwhile %s', async (_, given) => {
    const { failing, elsewhere, unknown }: { failing?: number; elsewhere?: number; unknown?: number } = given;
    put('room', 'ann');
    let turn = 0;
    let laterMs = 60_000;
    const revived: string[] = [];
    const sweeping = startSweep({
      ...dependencies(),
      intervalMs: 15_000,
      clock: { ...fastClock, delay: () => systemClock.delay(10), elapsed: () => (turn < 3 ? 0 : laterMs) },
      store: {
        ...parts.store,
        holdDuty: async () => {
          turn += 1;
          if (turn === unknown) throw new Error('away');
          return turn !== elsewhere;
        },
      },
      livekit: {
        ...livekit.service,
        listRooms: (names) => {
          if (turn === failing) throw unavailable();
          return livekit.service.listRooms(names);
        },
        listSids: () => Promise.reject(unavailable()),
        reviveRoom: async (room) => revived.push(room) > 0,
      },
    });
    await until('it has swept again', () => turn >= 6);
    expect(revived).toEqual([]);
    laterMs = 80_000;
    await until('it counts from then on', () => revived.length > 0);
    await sweeping.stop();
    const { values } = await parts.metrics.sweeps.get();
    const { completed, failed } = Object.fromEntries(values.map(({ labels, value }) => [labels.outcome, value]));
    expect(failed).toBe(elsewhere === undefined ? 1 : 0);
    // The last may have been cut short by the stop.
    expect([turn - 2, turn - 1]).toContain(completed);
  });

  test('many differences at once are looked at a third time, told, and repaired all the same', async () => {
    for (let at = 0; at < 25; at += 1) put(`room-${at}`, `p-${at}`);
    expect(await sweep()).toBe(25);
    expect(await live()).toHaveLength(25);
    expect(livekit.callsOf('ListParticipants').filter(({ body }) => body.room === 'room-0')).toHaveLength(3);
    expect(await parts.metrics.sweepAlarms.get()).toMatchObject({ values: [{ value: 1 }] });
  });

  test('asks once for who is in a room, and for twenty rooms at a time whether they are there', async () => {
    for (let at = 0; at < 25; at += 1) put(`room-${at}`, `p-${at}`);
    await sweep();
    const before = livekit.calls.length;
    expect(await sweep()).toBe(0);
    const calls = livekit.calls.slice(before).map(({ method, body }) => `${method} ${Object.keys(body)}`);
    const count = (call: string): number => calls.filter((each) => each === call).length;
    expect([count('ListRooms '), count('ListRooms names'), count('ListParticipants room')]).toEqual([1, 2, 25]);
    expect(calls).toHaveLength(28);
  });

  test('asks at most for 200 rooms a second', async () => {
    for (let at = 0; at < 300; at += 1) livekit.rooms.set(`room-${at}`, new Map());
    const stopping = new AbortController();
    const sweeping = sweepOnce({
      ...dependencies(),
      clock: systemClock,
      signal: stopping.signal,
      turn: nobodysTurn,
      before,
    }).catch(() => undefined);
    await until('the first look is over', () => livekit.callsOf('ListParticipants').length >= 300);
    const calls = livekit.callsOf('ListParticipants');
    expect((calls[299]?.atMs ?? 0) - (calls[0]?.atMs ?? 0)).toBeGreaterThan(1_300);
    stopping.abort();
    await sweeping;
  });

  test('does not wait for a clock that was set back meanwhile', async () => {
    for (let at = 0; at < 45; at += 1) livekit.rooms.set(`room-${at}`, new Map());
    let nowMs = Date.now();
    const delaysMs: number[] = [];
    const clock: Clock = {
      ...systemClock,
      now: () => nowMs,
      delay: async (ms) => {
        delaysMs.push(ms);
        nowMs -= 3_600_000;
      },
    };
    await sweep({ clock });
    expect(delaysMs.slice(0, 3)).toEqual([100, 100, 1_000]);
  });

  describe('of a room that does not fit into the log', () => {
    const asked = async (): Promise<string[]> =>
      (await parts.pool.query('select identity from marks where room_id = $1', ['crowd'])).rows
        .map(({ identity }) => identity)
        .sort();
    const crowd = Array.from({ length: 3_000 }, (_, at) => `${at}`.padEnd(190, 'x'));

    beforeEach(() => {
      for (const [at, identity] of crowd.entries()) put('crowd', identity, `PA_${at}`);
    });

    test('repairs the others, and asks about it and everybody in it', async () => {
      put('one', 'ann');
      await sweep();
      expect(await live()).toEqual(['one PA_ann']);
      expect(await asked()).toEqual(['', ...crowd].sort());
      expect(parts.lines.join('')).toContain('does not fit into the log');
    });

    test('asks about those who differ, where it is known', async () => {
      await parts.tell(told('room_started', 'crowd', ''));
      await parts.pool.query(
        `insert into sessions (room_id, room_sid, participant_sid, identity, kind, is_hidden, is_live, joined_at, version, last_fact_at)
          select 'crowd', 'RM_crowd', 'PA_' || at - 1, identity, 'STANDARD', false, true, now(), 1, now() - interval '1 minute'
            from unnest($1::text[]) with ordinality as inside (identity, at)`,
        [[...crowd, 'gone']],
      );
      await parts.pool.query('truncate marks');
      put('crowd', 'mallory');
      await sweep();
      expect(await asked()).toEqual(['mallory']);
    });
  });

  test('says of somebody what presence is folded from, and no more', async () => {
    put('one', 'ann');
    put('one', 'recorder', 'PA_recorder', 'observer');
    const recorder = livekit.rooms.get('one')?.get('recorder');
    if (recorder !== undefined) livekit.put('one', { ...recorder, kind: 'EGRESS' });
    await sweep();
    const { rows } = await parts.pool.query('select value from log_records where topic = $1', [topics.livekitWebhooks]);
    expect(rows.map(({ value }) => JSON.parse(value.toString()).participants)).toEqual([
      [
        { sid: 'PA_ann', identity: 'ann', attributes: { 'rt.user': 'ann' } },
        {
          sid: 'PA_recorder',
          identity: 'recorder',
          attributes: { 'rt.user': 'recorder' },
          kind: 'EGRESS',
          permission: { hidden: true },
        },
      ],
    ]);
  });

  describe('as a duty', () => {
    const start = (name: string, sweeps: string[], intervalMs = 100) =>
      startSweep({
        ...dependencies(),
        clock: systemClock,
        intervalMs,
        livekit: {
          ...livekit.service,
          listRooms: () => {
            sweeps.push(name);
            return livekit.service.listRooms();
          },
        },
      });

    test("is one's; the other takes over at once after its release", async () => {
      const sweeps: string[] = [];
      const first = start('first', sweeps, 1_000);
      await until('the first sweeps', () => sweeps.length > 0);
      const second = start('second', sweeps, 500);
      await until('the first goes on', () => sweeps.length > 2);
      expect(new Set(sweeps)).toEqual(new Set(['first']));
      await first.stop();
      const releasedAtMs = performance.now();
      await until('the second sweeps', () => sweeps.includes('second'));
      expect(performance.now() - releasedAtMs).toBeLessThan(1_000);
      await second.stop();
      expect((await parts.pool.query('select from duties')).rowCount).toBe(0);
    });

    test.each([
      ['of 0.4 s is followed by the next one 15 s after it began', 400, 14_600],
      ['that takes longer than the interval, by a pause of a second', 20_000, 1_000],
      ['during which the clock was set back, by the interval', -3_600_000, 15_000],
    ])('one %s', async (_, tookMs, pauseMs) => {
      let nowMs = Date.now();
      const paused = Promise.withResolvers<number>();
      const clock: Clock = {
        ...systemClock,
        now: () => nowMs,
        delay: (ms, signal) => {
          paused.resolve(ms);
          return systemClock.delay(ms, signal);
        },
      };
      const listRooms = () => {
        nowMs += tookMs;
        return livekit.service.listRooms();
      };
      const service = { ...livekit.service, listRooms };
      const sweeping = startSweep({ ...dependencies(), intervalMs: 15_000, clock, livekit: service });
      expect(await paused.promise).toBe(pauseMs);
      await sweeping.stop();
    });

    /** Parts of sweeps that note whom they ask about, and tell of the beginning of each. */
    const notingRound = (onSweep: () => void) => {
      const asked = new Set<string>();
      const markIdentities: typeof parts.store.markIdentities = async (_, identities) => {
        for (const each of identities) asked.add(each);
      };
      const listRooms: RoomService['listRooms'] = (names) => {
        if (names === undefined) onSweep();
        return livekit.service.listRooms(names);
      };
      const noting = { store: { ...parts.store, markIdentities }, livekit: { ...livekit.service, listRooms } };
      return { asked, noting };
    };

    test('that takes as long as two intervals asks about everybody in as many sweeps all the same', async () => {
      for (let at = 0; at < 240; at += 1) put('one', `p-${at}`, sidOf(at));
      await sweep();
      let nowMs = Date.now();
      let sweeps = 0;
      const { asked, noting } = notingRound(() => {
        sweeps += 1;
        nowMs += 29_000;
      });
      const sweeping = startSweep({
        ...dependencies(),
        ...noting,
        intervalMs: 15_000,
        clock: {
          ...systemClock,
          now: () => nowMs,
          delay: async (ms) => {
            nowMs += ms;
          },
        },
      });
      await until('there was one sweep for each turn', () => sweeps > 120, 20_000);
      await sweeping.stop();
      expect(asked.size).toBe(240);
    }, 30_000);

    test('that finds what the log does not take leaves others to be asked about by the next one', async () => {
      for (let at = 0; at < 240; at += 1) put('one', `p-${at}`, sidOf(at));
      await sweep();
      put('two', 'unknown');
      let sweeps = 0;
      const { asked, noting } = notingRound(() => {
        sweeps += 1;
      });
      const sweeping = startSweep({
        ...dependencies(),
        ...noting,
        intervalMs: 15_000,
        clock: { ...systemClock, delay: (_, signal) => systemClock.delay(1, signal) },
        log: { ...parts.log, append: () => Promise.reject(new Error('away')) },
      });
      await until('there was one sweep for each turn', () => sweeps > 120, 20_000);
      await sweeping.stop();
      expect([...asked].filter((identity) => identity.startsWith('p-'))).toHaveLength(240);
    }, 30_000);

    test('of somebody who vanished is taken over when it ends', async () => {
      await parts.pool.query(
        `insert into duties (name, holder, held_until) values ('sweep', 'vanished', now() + interval '500 ms')`,
      );
      const sweeps: string[] = [];
      const other = start('other', sweeps);
      await until('the other sweeps', () => sweeps.length > 0, 5_000);
      await other.stop();
    });

    test('is kept through a sweep that takes longer than its interval', async () => {
      // In four seconds, twice as long as the duty is had without being kept.
      for (let at = 0; at < 800; at += 1) livekit.rooms.set(`room-${at}`, new Map());
      const sweeps: string[] = [];
      const first = start('first', sweeps, 1_000);
      await until('the first sweeps', () => sweeps.length > 0);
      const second = start('second', sweeps, 500);
      await until(
        'the first has looked at every room',
        () => livekit.callsOf('ListParticipants').length >= 800,
        20_000,
      );
      expect(new Set(sweeps)).toEqual(new Set(['first']));
      await Promise.all([first.stop(), second.stop()]);
    });

    test('is given back, also where it was being kept at that moment, and more than once', async () => {
      const [listing, beingKept, mayBeKept] = [
        Promise.withResolvers<void>(),
        Promise.withResolvers<void>(),
        Promise.withResolvers<void>(),
      ];
      const asked: Promise<boolean>[] = [];
      let answered = 0;
      let askedAtRelease = 0;
      const hold: typeof parts.store.holdDuty = async (...duty) => {
        if (asked.length === 1) await mayBeKept.promise;
        const isHeld = await parts.store.holdDuty(...duty);
        answered += 1;
        return isHeld;
      };
      const sweeping = startSweep({
        ...dependencies(),
        // Waited for when the sweep is over, since there is nobody to look at twice.
        clock: {
          ...systemClock,
          delay: (ms, signal) => {
            mayBeKept.resolve();
            return systemClock.delay(ms, signal);
          },
        },
        intervalMs: 100,
        livekit: { ...livekit.service, listRooms: () => listing.promise.then(() => []) },
        store: {
          ...parts.store,
          holdDuty: (...duty) => {
            const held = hold(...duty);
            if (asked.push(held) === 3) beingKept.resolve();
            return held;
          },
          releaseDuty: (...duty) => {
            askedAtRelease = asked.length - answered;
            return parts.store.releaseDuty(...duty);
          },
        },
      });
      await beingKept.promise;
      const stopped = sweeping.stop();
      listing.resolve();
      await Promise.all([stopped, ...asked]);
      expect(askedAtRelease).toBe(0);
      expect((await parts.pool.query('select from duties')).rowCount).toBe(0);
    });

    test('ends between two looks, however many rooms are left', async () => {
      for (let at = 0; at < 5_000; at += 1) livekit.rooms.set(`room-${at}`, new Map());
      const sweeping = start('first', [], 15_000);
      await until('it is under way', () => livekit.callsOf('ListParticipants').length > 10);
      const startedAtMs = performance.now();
      await sweeping.stop();
      expect(performance.now() - startedAtMs).toBeLessThan(500);
      expect((await parts.pool.query('select from duties')).rowCount).toBe(0);
    });
  });
});

describeWith(['postgres', 'livekit'], 'the sweep, with a real LiveKit that sends no webhooks', () => {
  let real: RealWorker;
  let clients: Client[] = [];

  beforeAll(async () => {
    real = await startRealWorker({ hasWebhooks: false, env: { SWEEP_INTERVAL_SECONDS: '1' } });
  });
  afterAll(async () => {
    await Promise.all(clients.map(({ leave }) => leave()));
    await real.stop();
  });

  const believed = async (): Promise<string[]> =>
    (await real.pool.query(`select room_id || ' ' || participant_sid as session from sessions where is_live`)).rows
      .map(({ session }) => session)
      .sort();
  const listed = async (): Promise<string[]> => {
    const all = await Promise.all(
      (await real.rooms.listRooms()).map(async ({ name }) =>
        (await real.rooms.listParticipants(name)).map(({ sid }) => `${name} ${sid}`),
      ),
    );
    return all.flat().sort();
  };
  const agrees = (count: number) =>
    until(
      'presence is what LiveKit lists',
      async () => {
        const sessions = await believed();
        return sessions.length === count && sessions.join() === (await listed()).join();
      },
      15_000,
    );

  test('presence is what LiveKit lists, people who come, leave and are removed included', async () => {
    const people = ['ann', 'bob', 'cid'];
    for (const room of ['one', 'two']) {
      await real.publish(['room.created', room, { members: people.map((userId) => ({ userId, role: 'speaker' })) }]);
      await real.createRoom(room);
      for (const userId of people) clients.push(await connect(real.livekit.url, { room, userId }));
    }
    await agrees(6);
    await clients[0]?.leave();
    await agrees(5);
    await real.publish(['member.removed', 'two', { userId: 'bob' }]);
    await agrees(4);
    clients.push(await connect(real.livekit.url, { room: 'one', userId: 'stranger' }));
    await until(
      'whoever came in without being a member is out',
      async () => !(await real.rooms.listParticipants('one')).some(({ identity }) => identity === 'stranger'),
      15_000,
    );
  }, 60_000);

  test('of a LiveKit that was killed every session ends, and none before it answers again', async () => {
    const before = await believed();
    expect(before.length).toBeGreaterThan(0);
    await real.livekit.kill();
    await until('the worker has noticed', async () => {
      const { dependencies } = (await (await fetch(`${real.worker().opsUrl}/readyz`)).json()) as {
        dependencies: { livekit: { ok: boolean } };
      };
      return !dependencies.livekit.ok;
    });
    expect(await believed()).toEqual(before);
    await real.livekit.start();
    await agrees(0);
    clients = [];
  }, 60_000);
});
