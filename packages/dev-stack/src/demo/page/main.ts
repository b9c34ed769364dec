/** The demo page: who signs in, joins a room, sees and hears the others; a host decides who stays. */
import { ConnectionState, DefaultReconnectPolicy, DisconnectReason, Room, RoomEvent, Track } from 'livekit-client';
import type { DemoSettings, Person } from '../demo-settings.ts';
import { type JoinAnswer, type JoinProblem, joinRoom } from '../join-room.ts';
import { showMembers } from './members.ts';
import { showTiles, userIdOf } from './tiles.ts';

const element = <T extends HTMLElement>(id: string, kind: new () => T): T => {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
};

const entry = element('entry', HTMLFormElement);
const personChoice = element('person', HTMLSelectElement);
const roomName = element('room', HTMLInputElement);
const joinButton = element('join', HTMLButtonElement);
const leaveButton = element('leave', HTMLButtonElement);
const ownControls = element('own-controls', HTMLElement);
const microphoneButton = element('microphone', HTMLButtonElement);
const cameraButton = element('camera', HTMLButtonElement);
const playAudioButton = element('play-audio', HTMLButtonElement);
const state = element('state', HTMLOutputElement);
const message = element('message', HTMLParagraphElement);
const tiles = element('tiles', HTMLElement);
const members = element('members', HTMLElement);
const memberList = element('member-list', HTMLUListElement);

const response = await fetch('settings.json');
const settings = (await response.json()) as DemoSettings;

for (const { name, displayName } of settings.people) personChoice.append(new Option(displayName, name));
roomName.value = settings.roomId;

entry.addEventListener('submit', (event) => {
  event.preventDefault();
  const person = settings.people.find(({ name }) => name === personChoice.value);
  if (person !== undefined) void enter(person, roomName.value);
});

/**
 * As long as by default, but never more than 3 s apart (each is taken at 50 to 150 %): LiveKit may be back meanwhile.
 */
const retryDelaysMs = [0, 300, 1_000, ...Array.from({ length: 22 }, () => 2_000)];

/** From the click to the end of the call. */
async function enter(person: Person, roomId: string): Promise<void> {
  const leaving = new AbortController();
  const room = new Room({ reconnectPolicy: new DefaultReconnectPolicy(retryDelaysMs) });
  room.on(RoomEvent.ConnectionStateChanged, show);
  leaveButton.onclick = () => {
    leaving.abort();
    void room.disconnect();
  };
  setEntering(true);
  say('');
  try {
    const outcome = await joinRoom({
      apiUrl: settings.apiUrl,
      roomId,
      accessToken: await signIn(person.name),
      connect: ({ server_url, participant_token }) => room.connect(server_url, participant_token),
      signal: leaving.signal,
      onWait: (delayMs) => say(`The service is not available; asking again in ${Math.ceil(delayMs / 1000)} s …`),
    });
    if (outcome.kind === 'refused') {
      say(tellProblem(outcome.problem), 'bad');
      return;
    }
    say('');
    await stay(room, outcome.answer);
  } catch (error) {
    if (!leaving.signal.aborted) tellFailure(error);
  } finally {
    await room.disconnect();
    setEntering(false);
    show(ConnectionState.Disconnected);
  }
}

/** Resolves when the call is over. */
async function stay(room: Room, { permissions }: JoinAnswer): Promise<void> {
  const over = new Promise<DisconnectReason | undefined>((resolve) => room.once(RoomEvent.Disconnected, resolve));
  const isHost = permissions.moderate && room.name === settings.roomId;
  const decide = followRemovals(room);
  const refresh = () => {
    showTiles(tiles, room, settings.people);
    showOwnControls(room);
    if (isHost) showMembers(memberList, room, settings.people, decide);
  };
  for (const event of shownEvents) room.on(event, refresh);
  room.on(RoomEvent.ParticipantPermissionsChanged, () => void publish(room));
  members.hidden = !isHost;
  try {
    refresh();
    void publish(room);
    const reason = await over;
    if (reason !== DisconnectReason.CLIENT_INITIATED) say(tellEnd(reason), 'bad');
  } finally {
    room.removeAllListeners();
    members.hidden = true;
    ownControls.hidden = true;
    tiles.replaceChildren();
    memberList.replaceChildren();
  }
}

/** Has the demo server publish who is a member, and tells how long a removal took to reach the call. */
function followRemovals(room: Room): (person: Person, isMember: boolean) => Promise<void> {
  const removedAtMs = new Map<string, number>();
  room.on(RoomEvent.ParticipantDisconnected, (participant) => {
    const userId = userIdOf(participant) ?? '';
    const startedAtMs = removedAtMs.get(userId);
    if (startedAtMs === undefined) return;
    removedAtMs.delete(userId);
    say(`${participant.name ?? userId} was out of the call after ${Math.round(performance.now() - startedAtMs)} ms.`);
  });
  return async ({ name, displayName, userId }, isMember) => {
    try {
      const authorization = `Bearer ${await signIn(personChoice.value)}`;
      if (!isMember) removedAtMs.set(userId, performance.now());
      const method = isMember ? 'PUT' : 'DELETE';
      const answer = await fetch(`members/${name}`, { method, headers: { authorization } });
      if (!answer.ok) throw new Error(`The demo server answered ${answer.status}.`);
      if (isMember) say(`${displayName} may join now.`);
    } catch (error) {
      tellFailure(error);
    }
  };
}

const shownEvents = [
  RoomEvent.ParticipantConnected,
  RoomEvent.ParticipantDisconnected,
  RoomEvent.TrackSubscribed,
  RoomEvent.TrackUnsubscribed,
  RoomEvent.LocalTrackPublished,
  RoomEvent.LocalTrackUnpublished,
  RoomEvent.TrackMuted,
  RoomEvent.TrackUnmuted,
  RoomEvent.ActiveSpeakersChanged,
  RoomEvent.ParticipantPermissionsChanged,
  RoomEvent.AudioPlaybackStatusChanged,
] as const;

/** Publishes what the rights allow, now and when they grow; LiveKit itself takes away what they no longer allow. */
async function publish(room: Room): Promise<void> {
  const { localParticipant } = room;
  try {
    if (mayPublish(room, Track.Source.Camera)) await localParticipant.setCameraEnabled(true);
    if (mayPublish(room, Track.Source.Microphone)) await localParticipant.setMicrophoneEnabled(true);
  } catch (error) {
    // Without a device, or without the person's leave, one can still watch and listen.
    say(`No camera or microphone: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function mayPublish({ localParticipant }: Room, source: Track.Source): boolean {
  const rights = localParticipant.permissions;
  if (rights === undefined || !rights.canPublish) return false;
  return rights.canPublishSources.map(Track.sourceFromProto).includes(source);
}

function showOwnControls(room: Room): void {
  const { localParticipant } = room;
  ownControls.hidden = false;
  microphoneButton.hidden = !mayPublish(room, Track.Source.Microphone);
  microphoneButton.textContent = localParticipant.isMicrophoneEnabled ? 'Mute microphone' : 'Unmute microphone';
  microphoneButton.onclick = () => void localParticipant.setMicrophoneEnabled(!localParticipant.isMicrophoneEnabled);
  cameraButton.hidden = !mayPublish(room, Track.Source.Camera);
  cameraButton.textContent = localParticipant.isCameraEnabled ? 'Stop camera' : 'Start camera';
  cameraButton.onclick = () => void localParticipant.setCameraEnabled(!localParticipant.isCameraEnabled);
  playAudioButton.hidden = room.canPlaybackAudio;
  playAudioButton.onclick = () => void room.startAudio();
}

/** A real client sends people to the issuer's own page; the password grant is for development. */
async function signIn(name: string): Promise<string> {
  const body = new URLSearchParams({ grant_type: 'password', client_id: 'web', username: name, password: name });
  const answer = await fetch(settings.tokenUrl, { method: 'POST', body });
  if (!answer.ok) throw new Error(`The issuer did not let ${name} sign in: it answered ${answer.status}.`);
  return ((await answer.json()) as { access_token: string }).access_token;
}

function setEntering(isEntering: boolean): void {
  joinButton.hidden = isEntering;
  leaveButton.hidden = !isEntering;
  personChoice.disabled = isEntering;
  roomName.disabled = isEntering;
}

const stateText: Readonly<Record<ConnectionState, string>> = {
  [ConnectionState.Disconnected]: 'not connected',
  [ConnectionState.Connecting]: 'connecting …',
  [ConnectionState.Connected]: 'connected',
  [ConnectionState.Reconnecting]: 'reconnecting …',
  [ConnectionState.SignalReconnecting]: 'reconnecting …',
};

function show(now: ConnectionState): void {
  state.value = stateText[now];
  state.dataset['state'] = now;
}

function say(text: string, tone: 'plain' | 'bad' = 'plain'): void {
  message.textContent = text;
  message.dataset['tone'] = tone;
  message.hidden = text === '';
}

function tellFailure(error: unknown): void {
  say(error instanceof Error ? error.message : String(error), 'bad');
}

/** What the person can do, after what the problem itself says. */
const advice: Readonly<Record<string, string>> = {
  unauthenticated: 'Sign in again.',
  room_not_found: 'It does not exist, or you are not a member: nobody outside is told which.',
  banned: 'A moderator has to lift the ban.',
  user_disabled: 'An administrator has to enable it.',
  device_conflict: 'Leave there first.',
  room_full: 'Try again when somebody has left.',
  room_closed: 'A closed room does not open again.',
  room_locked: 'A moderator has to unlock it.',
  rate_limited: 'Wait a moment.',
  projection_stale: 'Is the room-worker running?',
  livekit_unavailable: 'Is LiveKit running?',
  store_unavailable: 'Is the database running?',
};

function tellProblem({ code, title, opens_at: opensAt }: JoinProblem): string {
  const hint = opensAt === undefined ? advice[code] : `It opens ${new Date(opensAt).toLocaleString()}.`;
  return hint === undefined ? title : `${title} ${hint}`;
}

const ends: Readonly<Partial<Record<DisconnectReason, string>>> = {
  [DisconnectReason.PARTICIPANT_REMOVED]: 'You were removed from the room.',
  [DisconnectReason.ROOM_DELETED]: 'The room was closed.',
  [DisconnectReason.DUPLICATE_IDENTITY]: 'You joined this room somewhere else.',
  [DisconnectReason.SERVER_SHUTDOWN]: 'LiveKit was shut down.',
};

function tellEnd(reason: DisconnectReason | undefined): string {
  return (reason === undefined ? undefined : ends[reason]) ?? 'The connection was lost.';
}
