import { SignJWT } from 'jose';
import { livekitKey } from './processes.ts';

/** A LiveKit token of somebody in a room, sized as a join gives it. */
export const livekitTokenOf = (roomId: string, userId: string): Promise<string> =>
  new SignJWT({
    name: 'Some Body',
    attributes: { 'rt.user': userId, 'rt.login': '0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f' },
    video: { room: roomId, roomJoin: true, canPublish: true, canSubscribe: true, canPublishData: true },
  })
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer(livekitKey.name)
    .setSubject(userId)
    .setExpirationTime('8h')
    .sign(new TextEncoder().encode(livekitKey.secret));
