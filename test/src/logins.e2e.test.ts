/** A login that ends, ends its calls: a real Keycloak tells the api by back-channel logout, behind a real proxy. */
import { once } from 'node:events';
import { request } from 'node:http';
import { keycloakAdmin, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { decodeJwt } from 'jose';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { refreshed, validate } from './gate-door.ts';
import { type Identity, keycloakIdentity } from './identity.ts';
import { connect } from './participant.ts';
import { type System, startSystem } from './system.ts';

describeWith(['postgres', 'kafka', 'livekit', 'keycloak', 'nginx'], 'logins', ({ keycloak }) => {
  let identity: Identity;
  let system: System;

  /** Tells Keycloak where the client `web` hears of logouts: our api, at the port that it has here. */
  const setLogoutUrl = async (url: string): Promise<void> => {
    const found = await keycloakAdmin(keycloak.url, '/realms/dev/clients?clientId=web');
    const [client] = (await found.json()) as { id: string; attributes: Record<string, string> }[];
    const attributes = { ...client?.attributes, 'backchannel.logout.url': url };
    const body = JSON.stringify({ ...client, attributes });
    const answer = await keycloakAdmin(keycloak.url, `/realms/dev/clients/${client?.id}`, { method: 'PUT', body });
    expect(answer.status).toBe(204);
  };

  beforeAll(async () => {
    identity = await keycloakIdentity(keycloak);
    system = await startSystem({ identity, door: 'nginx', env: { OIDC_LOGOUT_AUDIENCE: 'web' } });
    await setLogoutUrl(`${system.api.url}/api/realtime/oidc/backchannel-logout`);
  }, 240_000);
  afterAll(() => system?.stop(), 60_000);

  /** One login of a person on one device, inside the room, and the tokens that it has. */
  const enterBy = async (accessToken: string, room: string, device_id: string) => {
    const response = await system.join('ann', room, { device_id }, { authorization: `Bearer ${accessToken}` });
    expect(response.status).toBe(200);
    const { participant_token: original, server_url } = (await response.json()) as Record<string, string>;
    const participant = await connect(server_url ?? '', original ?? '');
    const tokens = [original ?? '', await refreshed(participant, original ?? '')];
    return { accessToken, room, device_id, participant, tokens };
  };
  type Entered = Awaited<ReturnType<typeof enterBy>>;

  const atGate = async (token: string): Promise<number | undefined> => {
    const { hostname, port } = new URL(system.door?.url ?? '');
    const asked = request({ hostname, port, path: validate(token), agent: false }).end();
    const [response] = await once(asked, 'response');
    response.resume();
    return response.statusCode;
  };
  const atDesk = async ({ accessToken, room, device_id }: Entered): Promise<number> =>
    (await system.join('ann', room, { device_id }, { authorization: `Bearer ${accessToken}` })).status;
  const listed = async (room: string): Promise<string[]> =>
    (await system.rooms.listParticipants(room)).map((participant) => participant.identity);

  test("an administrator's logout ends that login's calls, and not another login of the same person", async () => {
    await system.createRoom('two-logins', { ann: 'speaker' });
    const phone = await enterBy(await identity.newToken('ann'), 'two-logins', 'phone');
    const desk = await enterBy(await identity.newToken('ann'), 'two-logins', 'desk');
    const { sid } = decodeJwt(phone.accessToken);
    expect(sid).not.toBe(decodeJwt(desk.accessToken)['sid']);

    const startedAtMs = performance.now();
    expect((await keycloakAdmin(keycloak.url, `/realms/dev/sessions/${sid}`, { method: 'DELETE' })).status).toBe(204);
    const { atMs } = await phone.participant.out;
    expect(atMs - startedAtMs).toBeLessThan(5_000);

    expect(await atDesk(phone)).toBe(401);
    for (const token of phone.tokens) {
      expect(await atGate(token)).toBe(403);
      await expect(connect(system.door?.url ?? '', token)).rejects.toThrow();
    }
    expect(await listed('two-logins')).toEqual([desk.participant.identity]);
    expect(await atDesk(desk)).toBe(200);
    for (const token of desk.tokens) expect(await atGate(token)).toBe(200);
    await desk.participant.leave();
  }, 60_000);

  test('a logout while Kafka is away is kept, whatever restarts, and ends the call when Kafka is back', async () => {
    await system.createRoom('kept', { cleo: 'speaker' });
    const call = await enterBy(await identity.newToken('cleo'), 'kept', 'phone');
    await system.kafka?.kill();
    const { sid } = decodeJwt(call.accessToken);
    expect((await keycloakAdmin(keycloak.url, `/realms/dev/sessions/${sid}`, { method: 'DELETE' })).status).toBe(204);
    const kept = async (): Promise<number | null> => (await system.pool.query('select from kept_records')).rowCount;
    await until('the logout is kept', async () => (await kept()) === 1);
    await system.api.kill();
    await system.kafka?.start();
    expect(await kept()).toBe(1);
    await system.api.start();
    await call.participant.out;
    await until('nothing is kept any more', async () => (await kept()) === 0);
    for (const token of call.tokens) expect(await atGate(token)).toBe(403);
  }, 90_000);

  test('whoever is disabled is out of every call, by every login', async () => {
    await system.createRoom('disabled-1', { bob: 'speaker', cleo: 'speaker' });
    await system.createRoom('disabled-2', { bob: 'speaker' });
    const [first, second] = [await identity.newToken('bob'), await identity.newToken('bob')];
    const calls = [await enterBy(first, 'disabled-1', 'phone'), await enterBy(second, 'disabled-2', 'desk')];
    const cleo = await enterBy(await identity.token('cleo'), 'disabled-1', 'phone');
    const userId = identity.subjectOf('bob');
    await system.publish({ type: 'user.disabled', subject: userId, data: { userId } });
    await Promise.all(calls.map(({ participant }) => participant.out));
    for (const call of calls) {
      expect(await atDesk(call)).toBe(403);
      for (const token of call.tokens) expect(await atGate(token)).toBe(403);
    }
    expect(await listed('disabled-1')).toEqual([cleo.participant.identity]);
    await cleo.participant.leave();
  }, 60_000);
});
