import type { Room } from 'livekit-client';
import type { Person } from '../demo-settings.ts';
import { textElement, userIdOf } from './tiles.ts';

type Decide = (person: Person, isMember: boolean) => Promise<void>;

/**
 * The host's list, oneself left out: who is here can be removed, whoever is not can be let (back) in. A row is only
 * replaced when it changes, since a button that is replaced under a finger is not pressed.
 */
export function showMembers(list: HTMLUListElement, room: Room, people: readonly Person[], decide: Decide): void {
  const present = new Set([...room.remoteParticipants.values()].map(userIdOf));
  const own = userIdOf(room.localParticipant);
  for (const person of people.filter(({ userId }) => userId !== own)) {
    const isPresent = present.has(person.userId);
    const shown = list.querySelector<HTMLElement>(`[data-person="${CSS.escape(person.name)}"]`);
    if (shown?.dataset['present'] === String(isPresent)) continue;
    const action = isPresent ? 'Remove' : shown === null ? 'Let in' : 'Let back in';
    const row = memberRow(person, isPresent, action);
    row.querySelector('button')?.addEventListener('click', () => void decide(person, !isPresent));
    if (shown === null) list.append(row);
    else shown.replaceWith(row);
  }
}

function memberRow(person: Person, isPresent: boolean, action: string): HTMLLIElement {
  const row = document.createElement('li');
  row.dataset['person'] = person.name;
  row.dataset['present'] = String(isPresent);
  const button = document.createElement('button');
  button.type = 'button';
  button.className = isPresent ? 'remove' : 'let-in';
  button.textContent = action;
  row.append(
    textElement('span', 'name', person.displayName),
    textElement('span', 'role', person.role),
    textElement('span', 'presence', isPresent ? 'in the call' : 'not in the call'),
    button,
  );
  return row;
}
