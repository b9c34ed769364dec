import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { RoomEvent } from '@livekit/rtc-node';
import { type GateProxyName, until } from '@realtime-service/dev-stack';
import { afterAll, beforeAll } from 'vitest';
import { type BrowserParticipant, type Chromium, startChromium } from './browser.ts';
import { type Identity, startDevIdentity } from './identity.ts';
import { connect, type Participant } from './participant.ts';
import { type System, startSystem } from './system.ts';

type Role = 'host' | 'speaker' | 'listener';

/** The system behind one reverse proxy, and what the cases here do with it. */
export const behind = (name: GateProxyName) => {
  let identity: Identity;
  let system: System;
  let chromium: Chromium;

  beforeAll(async () => {
    identity = await startDevIdentity();
    system = await startSystem({ identity, log: 'embedded', door: name });
    chromium = await startChromium();
  }, 240_000);
  afterAll(async () => {
    await chromium?.stop();
    await system?.stop();
    await identity?.stop();
  }, 60_000);

  const idOf = (user: string): string => identity.subjectOf(user);
  const url = (): string => system.door?.url ?? '';

  const createRoom: System['createRoom'] = (...room) => system.createRoom(...room);

  return {
    system: () => system,
    chromium: () => chromium,
    idOf,
    url,
    createRoom,
    tokenFor: async (user: string, room: string) => (await system.enter(user, room)).participant_token,
    enter: async (user: string, room: string): Promise<Participant> => {
      const { server_url, participant_token } = await system.enter(user, room);
      return connect(server_url, participant_token);
    },
    enterByBrowser: async (user: string, room: string): Promise<BrowserParticipant> => {
      const { server_url, participant_token } = await system.enter(user, room);
      return chromium.connect(server_url, participant_token);
    },
    remove: (user: string, room: string) =>
      system.publish({ type: 'member.removed', subject: room, data: { userId: idOf(user) } }),
    setRole: (user: string, room: string, role: Role) =>
      system.publish({ type: 'member.updated', subject: room, data: { userId: idOf(user), role } }),
    listed: async (room: string) => system.rooms.listParticipants(room),
    /**
     * Opens the signalling and asks for a session beside one's own, in a body; until LiveKit or the door has answered.
     */
    signalBeside: async (token: string): Promise<void> => {
      const body = '--b\r\nContent-Disposition: form-data; name="publish"\r\n\r\nx\r\n--b--\r\n';
      const headers = {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
        'content-type': 'multipart/form-data; boundary=b',
        'content-length': `${body.length}`,
      };
      const { hostname, port } = new URL(url());
      const path = `/rtc?access_token=${token}`;
      const asked = request({ hostname, port, path, headers, agent: false }).end(body);
      // What was opened stays open, and may be reset by whoever ends first.
      asked.on('upgrade', (_response, socket) => socket.on('error', () => undefined));
      await Promise.race([once(asked, 'upgrade'), once(asked, 'response')]);
    },
    /** The status at the door, without opening a session; path and headers byte for byte. */
    knock: async (path: string, headers: Record<string, string> = {}, method = 'GET') => {
      const { hostname, port } = new URL(url());
      const asked = request({ hostname, port, path, headers, method, agent: false }).end();
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      response.resume();
      return response.statusCode;
    },
  };
};

export const validate = (token: string): string => `/rtc/validate?access_token=${token}`;

/** The refresh token that LiveKit hands out once somebody is inside. */
export const refreshed = ({ room }: Participant, original: string): Promise<string> =>
  until('a refresh token came', () => room.token !== undefined && room.token !== original && room.token);

export const returned = (participant: Participant): Promise<void> =>
  new Promise((resolve) => participant.room.once(RoomEvent.Reconnected, () => resolve()));
