import { describeWith, realParts } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { connect } from './participant.ts';
import { livekitKey, type System, startSystem } from './system.ts';
import { until } from './until.ts';

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
  const { zipkin } = realParts(['zipkin']);

  beforeAll(async () => {
    identity = await startDevIdentity();
    const env = {
      OTEL_TRACES_EXPORTER: 'zipkin',
      OTEL_EXPORTER_ZIPKIN_ENDPOINT: `${zipkin.url}/api/v2/spans`,
      OTEL_BSP_SCHEDULE_DELAY: '200',
    };
    system = await startSystem({ identity, env });
  }, 120_000);
  afterAll(async () => {
    await system?.stop();
    await identity?.stop();
  }, 60_000);

  const spansOf = async (traceId: string): Promise<ZipkinSpan[]> => {
    const response = await fetch(`${zipkin.url}/api/v2/trace/${traceId}`);
    return response.ok ? ((await response.json()) as ZipkinSpan[]) : [];
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
    await until('bob is known to be inside', async () => {
      const { rows } = await system.pool.query('select 1 from sessions where is_live');
      return rows.length === 1;
    });
    const data = { userId: identity.subjectOf('bob') };
    await system.publish({ type: 'member.removed', subject: 'traced', data, traceparent: traceparent(removalTrace) });
    await bob.out;

    const joined = await until('the join is in Zipkin', async () => {
      const spans = await spansOf(joinTrace);
      return spans.some(({ kind }) => kind === 'SERVER') && spans.length > 2 && spans;
    });
    const servers = joined.filter(({ kind }) => kind === 'SERVER');
    expect(servers.map(({ name }) => name)).toEqual(['post /api/realtime/rooms/:roomid/join']);
    const beneath = joined.filter(({ parentId }) => parentId === servers[0]?.id).map(({ name }) => name);
    expect(beneath.some((name) => name.startsWith('pg.query'))).toBe(true);

    const callIn = (spans: readonly ZipkinSpan[]): ZipkinSpan | undefined =>
      spans.find(({ tags }) => tags?.['url.full']?.endsWith('/RemoveParticipant'));
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
    // Zipkin's model has no links: a span says the traces that it is linked with in a tag.
    await until('an entry in the worker points to its join', async () => {
      const query = `serviceName=realtime-service-room-worker&annotationQuery=${encodeURIComponent(`rt.linked_traces=${joinTrace}`)}`;
      const traces = (await (await fetch(`${zipkin.url}/api/v2/traces?${query}`)).json()) as ZipkinSpan[][];
      return traces.length > 0 && traces.flat().every(({ traceId }) => traceId !== joinTrace);
    });

    const everything = JSON.stringify(await (await fetch(`${zipkin.url}/api/v2/traces?limit=1000`)).json());
    for (const text of [everything, await system.api.readLog(), await system.worker.readLog()]) {
      expect(text).not.toMatch(/eyJ[\w-]{10,}/);
      expect(text).not.toContain(livekitKey.secret);
      expect(text).not.toContain('@example.test');
    }
  }, 90_000);
});
