import { type Participant, type Room, Track } from 'livekit-client';
import type { Person } from '../demo-settings.ts';

/** One tile per participant, oneself first. Those that are there already are kept: a moved video would flicker. */
export function showTiles(container: HTMLElement, room: Room, people: readonly Person[]): void {
  const participants: Participant[] = [room.localParticipant, ...room.remoteParticipants.values()];
  const tiles = participants.map((participant) => {
    const tile = tileOf(container, participant);
    showMedia(tile, participant);
    tile.classList.toggle('own', participant.isLocal);
    tile.classList.toggle('speaking', participant.isSpeaking);
    showCaption(tile, participant, people);
    return tile;
  });
  for (const tile of [...container.children]) if (!tiles.some((kept) => kept === tile)) tile.remove();
}

/** The account behind a participant: the identity may name a device too, and is never taken apart. */
export function userIdOf(participant: Participant): string | undefined {
  return participant.attributes['rt.user'];
}

function tileOf(container: HTMLElement, { identity }: Participant): HTMLElement {
  for (const tile of container.children) {
    if (tile instanceof HTMLElement && tile.dataset['identity'] === identity) return tile;
  }
  const tile = document.createElement('article');
  tile.className = 'tile';
  tile.dataset['identity'] = identity;
  const caption = document.createElement('div');
  caption.className = 'caption';
  tile.append(caption);
  container.append(tile);
  return tile;
}

/** Attaches what is to be seen and heard, and detaches what is not any more. One's own sound is not played. */
function showMedia(tile: HTMLElement, participant: Participant): void {
  const wanted = [...participant.trackPublications.values()].flatMap(({ track, isMuted }) =>
    track === undefined || (track.kind === Track.Kind.Video ? isMuted : participant.isLocal) ? [] : [track],
  );
  const elements = wanted.map((track) => {
    const present = track.attachedElements.find((element) => element.parentElement === tile);
    if (present !== undefined) return present;
    const element = track.attach();
    tile.prepend(element);
    return element;
  });
  for (const element of tile.querySelectorAll<HTMLMediaElement>('video, audio')) {
    if (!elements.includes(element)) element.remove();
  }
  const hasVideo = elements.some((element) => element instanceof HTMLVideoElement);
  tile.querySelector('.initial')?.remove();
  if (!hasVideo) tile.append(textElement('div', 'initial', nameOf(participant).slice(0, 1)));
}

function showCaption(tile: HTMLElement, participant: Participant, people: readonly Person[]): void {
  const role = people.find(({ userId }) => userId === userIdOf(participant))?.role ?? '';
  const name = participant.isLocal ? `${nameOf(participant)} (you)` : nameOf(participant);
  const isSilent = !participant.isMicrophoneEnabled;
  const parts = [textElement('strong', 'name', name), textElement('span', 'role', role)];
  if (isSilent) parts.push(textElement('span', 'muted', 'muted'));
  tile.querySelector('.caption')?.replaceChildren(...parts);
}

function nameOf({ name, identity }: Participant): string {
  return name || identity;
}

export function textElement(tag: string, className: string, text: string): HTMLElement {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}
