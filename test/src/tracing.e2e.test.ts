import { until } from '@realtime-service/dev-stack';
import { describeWith, realParts } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { connect } from './participant.ts';
import { type RoomServiceProxy, startRoomServiceProxy } from './room-service-proxy.ts';
import { livekitKey, type System, startSystem } from './system.ts';

interface ZipkinSpan {
  readonly traceId: string;
  readonly id: string;
  readonly parentId?: string;
  readonly kind?: string;
  readonly name: string;
  readonly localEndpoint?: { readonly serviceName?: string };
  readonly tags?: Readonly<Record<string, string>>;
}

const joinTrace = '4bf92f3577b34da6a3ce929d0e0e4736';
const removalTrace = '5cf92f3577b34da6a3ce929d0e0e4737';
const traceparent = (traceId: string): string => `00-${traceId}-00f067aa0ba902b7-01`;

describeWith(['postgres', 'kafka', 'livekit', 'zipkin'], 'traces', () => {
  let identity: Identity;
  let system: System;
  let livekitApi: RoomServiceProxy;
  const { zipkin } = realParts(['zipkin']);

  beforeAll(async () => {
    livekitApi = await startRoomServiceProxy();
    identity = await startDevIdentity();
    const env = {
      LIVEKIT_API_URL: livekitApi.url,
      OTEL_TRACES_EXPORTER: 'zipkin',
      OTEL_EXPORTER_ZIPKIN_ENDPOINT: `${zipkin.url}/api/v2/spans`,
      OTEL_BSP_SCHEDULE_DELAY: '200',
    };
    system = await startSystem({ identity, env });
    livekitApi.targetPort = system.livekit.ports.http;
  }, 120_000);
  afterAll(async () => {
    await system?.stop();
    await identity?.stop();
    livekitApi?.stop();
  }, 60_000);

  const spansOf = async (traceId: string): Promise<ZipkinSpan[]> => {
    const response = await fetch(`${zipkin.url}/api/v2/trace/${traceId}`);
    return response.ok ? ((await response.json()) as ZipkinSpan[]) : [];
  };

  const callIn = (spans: readonly ZipkinSpan[]): ZipkinSpan | undefined =>
    spans.find(({ tags }) => tags?.['url.full']?.endsWith('/RemoveParticipant'));

  /** Zipkin's model has no links: a span says the traces that it is linked with in a tag. */
  const linkedWith = async (traceId: string): Promise<ZipkinSpan[]> => {
    const query = `serviceName=realtime-service-room-worker&annotationQuery=${encodeURIComponent(`rt.linked_traces=${traceId}`)}`;
    return ((await (await fetch(`${zipkin.url}/api/v2/traces?${query}`)).json()) as ZipkinSpan[][]).flat();
  };

  const exists = async (rows: string): Promise<boolean> =>
    (await system.pool.query(`select ${rows} limit 1`)).rows.length > 0;

  const remove = (user: string, room: string, traceId: string): Promise<void> => {
    const data = { userId: identity.subjectOf(user) };
    return system.publish({
      type: 'member.removed',
      subject: room,
      data,
      traceparent: traceparent(traceId),
    });
  };

  /** The spans from the root that a caller outside has made down to this one, by name. */
  const storyOf = (spans: readonly ZipkinSpan[], leaf: ZipkinSpan): string[] => {
    const parent = spans.find(({ id }) => id === leaf.parentId);
    return [...(parent === undefined ? [] : storyOf(spans, parent)), leaf.name];
  };

  test('lead from the click to the token and from the fact to the removal, linked, and without secrets', async () => {
    const members = [{ userId: identity.subjectOf('bob'), role: 'speaker' as const, displayName: 'bob@example.test' }];
    await system.publish({ type: 'room.created', subject: 'traced', data: { members } });
    await until('the room is there', async () => (await system.join('bob', 'traced')).status === 200);
    const response = await system.join('bob', 'traced', undefined, { traceparent: traceparent(joinTrace) });
    const { server_url, participant_token, trace_id } = (await response.json()) as Awaited<ReturnType<System['enter']>>;
    expect(trace_id).toBe(joinTrace);
    const bob = await connect(server_url, participant_token);
    await until('bob is known to be inside', () => exists('from sessions where is_live'));
    // The question about his entry would take him out along with it, in a trace of its own.
    await until('no question is open', async () => !(await exists('from marks')));
    await remove('bob', 'traced', removalTrace);
    await bob.out;

    const joined = await until('the join is in Zipkin', async () => {
      const spans = await spansOf(joinTrace);
      return spans.some(({ kind }) => kind === 'SERVER') && spans.length > 2 && spans;
    });
    const servers = joined.filter(({ kind }) => kind === 'SERVER');
    expect(servers.map(({ name }) => name)).toEqual(['post /api/realtime/rooms/:roomid/join']);
    const beneath = joined.filter(({ parentId }) => parentId === servers[0]?.id).map(({ name }) => name);
    expect(beneath.some((name) => name.startsWith('pg.query'))).toBe(true);

    // A span ends, and is sent, before the one that it is part of.
    const removed = await until('the removal is in Zipkin', async () => {
      const spans = await spansOf(removalTrace);
      return spans.some(({ id }) => id === callIn(spans)?.parentId) && spans;
    });
    const call = callIn(removed) as ZipkinSpan;
    expect(storyOf(removed, call)).toEqual(['enforce mark', 'post']);
    expect(removed.map(({ name }) => name)).toContain('project realtime.room-events.v1');

    const services = await (await fetch(`${zipkin.url}/api/v2/services`)).json();
    expect(services).toEqual(expect.arrayContaining(['realtime-service-api', 'realtime-service-room-worker']));
    await until('an entry in the worker points to its join', async () => {
      const spans = await linkedWith(joinTrace);
      return spans.length > 0 && spans.every(({ traceId }) => traceId !== joinTrace);
    });

    const everything = JSON.stringify(await (await fetch(`${zipkin.url}/api/v2/traces?limit=1000`)).json());
    for (const text of [everything, await system.api.readLog(), await system.worker.readLog()]) {
      expect(text).not.toMatch(/eyJ[\w-]{10,}/);
      expect(text).not.toContain(livekitKey.secret);
      expect(text).not.toContain('@example.test');
    }
  }, 90_000);

  test('lead from a fact to the question that was under way already and answered it', async () => {
    /** Answers the span that took ann out, if it is the question's that was asked before the removal was known. */
    const removedByEarlier = async (room: string, traceId: string): Promise<ZipkinSpan | undefined> => {
      const { promise: removalIsKnown, resolve: goOn } = Promise.withResolvers<undefined>();
      await system.createRoom(room, { ann: 'speaker' });
      livekitApi.faultOf = (method) => (method === 'GetParticipant' ? removalIsKnown : undefined);
      const { server_url, participant_token } = await system.enter('ann', room);
      const ann = await connect(server_url, participant_token);
      await until('the question about her entry is asked', () =>
        exists(`from marks where room_id = '${room}' and identity <> '' and locked_until is not null`),
      );
      // The room's question may lead to hers before her entry is told: a removal asks about who is known to be inside.
      await until('she is known to be inside', () => exists(`from sessions where room_id = '${room}' and is_live`));
      await remove('ann', room, traceId);
      await until('the removal has raised it again', () => exists(`from marks where trace like '%${traceId}%'`));
      goOn(undefined);
      await ann.out;
      const removal = await until('the removal is in Zipkin', async () => {
        const spans = [...(await linkedWith(traceId)), ...(await spansOf(traceId))];
        return spans.find(({ id }) => id === callIn(spans)?.parentId);
      });
      return removal.traceId === traceId ? undefined : removal;
    };

    // A question that waits for LiveKit for more than two seconds is asked anew, and then in the removal's own trace.
    let removal: ZipkinSpan | undefined;
    for (let at = 0; removal === undefined && at < 5; at += 1)
      removal = await removedByEarlier(`traced-late-${at}`, `6cf92f3577b34da6a3ce929d0e0e47${at}0`);
    expect(removal?.name).toBe('enforce mark');
    expect(removal?.tags?.['rt.linked_traces']).toMatch(/^6cf92f3577b34da6a3ce929d0e0e47\d0$/);
  }, 120_000);
});
